#include "model.h"
#include <stdexcept>

Config read_config(const Gguf& file) {
  const auto architecture = file.strings.find("general.architecture");
  if (architecture == file.strings.end() || architecture->second != "llama") {
    throw std::runtime_error("general.architecture is not 'llama', the only one that is served");
  }
  const auto whole = [&](const char* key) {
    const double value = file.number(key);
    return value >= 1 && value <= 1 << 24 ? int(value) : throw std::runtime_error(std::string(key) + " is out of range");
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
  const auto expect = [&](const std::string& name, int rows, int cols) {
    const auto shape = [](int r, int k) { return std::to_string(r) + " x " + std::to_string(k); };
    const Tensor& t = file.tensor(name + ".weight");
    if (t.rows == rows && t.cols == cols) return;
    throw std::runtime_error("tensor '" + name + ".weight' has shape " + shape(t.rows, t.cols) + ", expected " + shape(rows, cols));
  };
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  expect("token_embd", c.vocab, c.dim), expect("output_norm", 1, c.dim);
  for (int i = 0; i < c.layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    expect(block + "attn_norm", 1, c.dim), expect(block + "attn_q", q, c.dim), expect(block + "attn_k", kv, c.dim);
    expect(block + "attn_v", kv, c.dim), expect(block + "attn_output", c.dim, q), expect(block + "ffn_norm", 1, c.dim);
    expect(block + "ffn_gate", c.ffn, c.dim), expect(block + "ffn_up", c.ffn, c.dim), expect(block + "ffn_down", c.dim, c.ffn);
  }
  return c;
}
