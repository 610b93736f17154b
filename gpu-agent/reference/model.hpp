// The Llama architecture as the GGUF states it: hyperparameters and the tensors of each layer.
#pragma once
#include <string>
#include <vector>

#include "dequant.hpp"
#include "gguf.hpp"

namespace ref {

struct Layer {
  std::vector<float> attnNorm, ffnNorm;
  Matrix q, k, v, out, gate, up, down;
};

struct Model {
  size_t dim, ffn, heads, kvHeads, headDim, vocab, context;
  double ropeBase, eps;
  size_t ropeDims;
  std::vector<Layer> layers;
  Matrix embedding, head;
  std::vector<float> outNorm;
};

inline std::vector<float> vectorOf(const Gguf& file, const std::string& name, size_t n) {
  const Tensor& t = file.tensor(name);
  if (t.shape.size() != 1 || t.shape[0] != n || t.type != F32 || t.room < n * 4)
    throw std::runtime_error("tensor " + name + " is not " + std::to_string(n) + " float32 values");
  std::vector<float> v(n);
  std::memcpy(v.data(), t.data, n * 4);
  return v;
}

inline Model loadModel(const Gguf& file) {
  if (file.text("general.architecture") != "llama")
    throw std::runtime_error("the reference knows the architecture llama, not \"" + file.text("general.architecture") + "\"");
  Model m{};
  const auto size = [&](const char* key) { return static_cast<size_t>(file.number(key)); };
  m.dim = size("llama.embedding_length");
  m.ffn = size("llama.feed_forward_length");
  m.heads = size("llama.attention.head_count");
  m.kvHeads = static_cast<size_t>(file.number("llama.attention.head_count_kv", static_cast<double>(m.heads)));
  if (m.dim == 0 || m.heads == 0 || m.kvHeads == 0 || m.heads % m.kvHeads != 0) throw std::runtime_error("GGUF has impossible head counts");
  m.headDim = static_cast<size_t>(file.number("llama.attention.key_length", static_cast<double>(m.dim / m.heads)));
  m.context = size("llama.context_length");
  m.ropeBase = file.number("llama.rope.freq_base", 10000);
  m.ropeDims = static_cast<size_t>(file.number("llama.rope.dimension_count", static_cast<double>(m.headDim)));
  m.eps = file.number("llama.attention.layer_norm_rms_epsilon");
  if (m.headDim == 0 || m.ropeDims > m.headDim || m.ropeDims % 2 != 0) throw std::runtime_error("GGUF has impossible rotary dimensions");

  const Tensor& embedding = file.tensor("token_embd.weight");
  if (embedding.shape.size() != 2) throw std::runtime_error("token_embd.weight is no matrix");
  m.vocab = embedding.shape[1];
  m.embedding = Matrix(file, "token_embd.weight", m.dim, m.vocab);
  m.head = file.has("output.weight") ? Matrix(file, "output.weight", m.dim, m.vocab) : m.embedding;
  m.outNorm = vectorOf(file, "output_norm.weight", m.dim);
  const size_t qDim = m.heads * m.headDim, kvDim = m.kvHeads * m.headDim;
  for (size_t i = 0; i < size("llama.block_count"); i++) {
    const std::string at = "blk." + std::to_string(i) + ".";
    m.layers.push_back({vectorOf(file, at + "attn_norm.weight", m.dim), vectorOf(file, at + "ffn_norm.weight", m.dim),
                        Matrix(file, at + "attn_q.weight", m.dim, qDim), Matrix(file, at + "attn_k.weight", m.dim, kvDim),
                        Matrix(file, at + "attn_v.weight", m.dim, kvDim), Matrix(file, at + "attn_output.weight", qDim, m.dim),
                        Matrix(file, at + "ffn_gate.weight", m.dim, m.ffn), Matrix(file, at + "ffn_up.weight", m.dim, m.ffn),
                        Matrix(file, at + "ffn_down.weight", m.ffn, m.dim)});
  }
  return m;
}

}  // namespace ref
