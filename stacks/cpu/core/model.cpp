#include "model.h"
#include <stdexcept>

namespace {
void expect_shape(const Gguf& file, const std::string& name, int rows, int cols) {
  const Tensor& t = file.tensor(name);
  if (t.rows == rows && t.cols == cols) return;
  throw std::runtime_error("tensor '" + name + "' has shape " + std::to_string(t.rows) + " x " + std::to_string(t.cols) + ", expected " +
                           std::to_string(rows) + " x " + std::to_string(cols));
}
}  // namespace

Config read_config(const Gguf& file) {
  const auto architecture = file.strings.find("general.architecture");
  if (architecture == file.strings.end() || architecture->second != "llama") {
    throw std::runtime_error("general.architecture is not 'llama', the only one that is served");
  }
  const auto whole = [&](const char* key) {
    const double value = file.number(key);
    if (value < 1 || value > 1 << 24) throw std::runtime_error(std::string(key) + " is out of range");
    return int(value);
  };
  Config c{};
  c.layers = whole("llama.block_count"), c.dim = whole("llama.embedding_length"), c.ffn = whole("llama.feed_forward_length");
  c.heads = whole("llama.attention.head_count"), c.kv_heads = whole("llama.attention.head_count_kv");
  c.head_dim = c.dim / c.heads, c.context = whole("llama.context_length"), c.vocab = file.tensor("token_embd.weight").rows;
  c.rope_base = file.number("llama.rope.freq_base"), c.norm_eps = file.number("llama.attention.layer_norm_rms_epsilon");
  c.bos = file.number("tokenizer.ggml.bos_token_id"), c.eos = file.number("tokenizer.ggml.eos_token_id");
  if (c.heads % c.kv_heads || c.head_dim % 2 || whole("llama.rope.dimension_count") != c.head_dim) {
    throw std::runtime_error("the numbers of heads and the rotated dimensions do not fit each other");
  }
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  expect_shape(file, "token_embd.weight", c.vocab, c.dim);
  expect_shape(file, "output_norm.weight", 1, c.dim);
  const struct { const char* name; int rows, cols; } shapes[] = {
      {"attn_norm", 1, c.dim}, {"attn_q", q, c.dim}, {"attn_k", kv, c.dim}, {"attn_v", kv, c.dim}, {"attn_output", c.dim, q},
      {"ffn_norm", 1, c.dim}, {"ffn_gate", c.ffn, c.dim}, {"ffn_up", c.ffn, c.dim}, {"ffn_down", c.dim, c.ffn}};
  for (int layer = 0; layer < c.layers; ++layer) {
    for (const auto& s : shapes) expect_shape(file, "blk." + std::to_string(layer) + "." + s.name + ".weight", s.rows, s.cols);
  }
  return c;
}
