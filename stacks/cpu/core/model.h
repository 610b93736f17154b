// Shape of a Llama-family model, read from the GGUF file's own keys.
#pragma once
#include "gguf.h"

struct Config {
  int layers, dim, ffn, heads, kv_heads, head_dim, vocab, context;
  float rope_base, norm_eps;
  int bos, eos;
};

Config read_config(const Gguf& file);  // throws std::runtime_error naming a missing key
