// Seed: one matrix product after another, in float32, through the seam `linear`.
#include "../seams/layer.h"
#include <cmath>
#include <vector>
#include "../seams/linear.h"

namespace {
constexpr int kMaxRows = 512;  // 26 MB of buffers; a longer prompt goes through in several steps

using Floats = std::vector<float>;
struct Layer { Floats attention_norm, ffn_norm; Weight *qkv, *out, *gate_up, *down; };

Floats vector_of(const Tensor& t) {
  Floats values(t.cols);
  dequantise_row(t, 0, values.data());
  return values;
}
}  // namespace

struct Body {
  Config c;
  const Tensor* embedding = nullptr;
  std::vector<Layer> layers;
  Floats norm, frequencies, x, normed, qkv, attended, change, gate_up, active, turns;
  std::vector<char> scratch;
};

int body_max_rows() { return kMaxRows; }

Body* body_load(const Gguf& file, const Config& c) {
  Body* b = new Body;
  b->c = c;
  b->embedding = &file.tensor("token_embd.weight");
  b->norm = vector_of(file.tensor("output_norm.weight"));
  for (int i = 0; i < c.head_dim; i += 2) b->frequencies.push_back(float(std::pow(double(c.rope_base), -double(i) / c.head_dim)));
  for (int i = 0; i < c.layers; ++i) {
    const auto tensor = [&](const char* name) { return &file.tensor("blk." + std::to_string(i) + "." + name + ".weight"); };
    const auto pack = [&](std::initializer_list<const Tensor*> tensors) {
      Weight* w = linear_pack({tensors.begin(), tensors.size()});
      b->scratch.resize(std::max(b->scratch.size(), linear_scratch(*w, kMaxRows)));
      return w;
    };
    b->layers.push_back({vector_of(*tensor("attn_norm")), vector_of(*tensor("ffn_norm")),
                         pack({tensor("attn_q"), tensor("attn_k"), tensor("attn_v")}), pack({tensor("attn_output")}),
                         pack({tensor("ffn_gate"), tensor("ffn_up")}), pack({tensor("ffn_down")})});
  }
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  const std::pair<Floats*, int> buffers[] = {{&b->x, c.dim}, {&b->normed, c.dim}, {&b->qkv, q + 2 * kv}, {&b->attended, q}, {&b->change, c.dim},
                                             {&b->gate_up, 2 * c.ffn}, {&b->active, c.ffn}, {&b->turns, c.head_dim}};
  for (const auto& [buffer, width] : buffers) buffer->resize(size_t(width) * kMaxRows);
  return b;
}

void body_forward(Body& b, const Row* rows, int n, const int* want, int wants, float* hidden) {
  const Config& c = b.c;
  const int q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim, width = q + 2 * kv;
  const auto norm = [&](const float* x, const Floats& weight, float* out) {
    float sum = 0;
    for (int i = 0; i < c.dim; ++i) sum += x[i] * x[i];
    const float scale = 1 / std::sqrt(sum / c.dim + c.norm_eps);
    for (int i = 0; i < c.dim; ++i) out[i] = x[i] * scale * weight[i];
  };
  parallel([&](int part, int parts) {
    const auto product = [&](const Weight& w, const Floats& in, Floats& out) {
      barrier();
      linear_prepare(w, in.data(), n, b.scratch.data(), part, parts);
      barrier();
      linear_compute(w, in.data(), b.scratch.data(), n, out.data(), part, parts);
      barrier();
    };
    // Every part does the work between products for its own rows: part, part + parts, …
    const auto each_row = [&](auto&& work) {
      for (size_t r = part; r < size_t(n); r += parts) work(r);
    };
    each_row([&](size_t r) {
      dequantise_row(*b.embedding, rows[r].token, &b.x[r * c.dim]);
      for (int i = 0; i < c.head_dim; ++i) {
        const float angle = rows[r].pos * b.frequencies[i / 2];
        b.turns[r * c.head_dim + i] = i % 2 ? std::sin(angle) : std::cos(angle);
      }
    });
    for (int i = 0; i < c.layers; ++i) {
      const Layer& layer = b.layers[i];
      each_row([&](size_t r) { norm(&b.x[r * c.dim], layer.attention_norm, &b.normed[r * c.dim]); });
      product(*layer.qkv, b.normed, b.qkv);
      each_row([&](size_t r) {
        float* pair = &b.qkv[r * width];  // queries and keys are rotated in pairs of neighbours
        for (int j = 0; j < q + kv; j += 2, pair += 2) {
          const float *turn = &b.turns[r * c.head_dim + j % c.head_dim], first = pair[0];
          pair[0] = first * turn[0] - pair[1] * turn[1];
          pair[1] = first * turn[1] + pair[1] * turn[0];
        }
      });
      barrier();
      kv_store(c, i, rows, n, &b.qkv[q], &b.qkv[q + kv], width, part, parts);
      barrier();
      attend(c, i, rows, n, b.qkv.data(), width, b.attended.data(), part, parts);
      product(*layer.out, b.attended, b.change);
      each_row([&](size_t r) {
        for (int d = 0; d < c.dim; ++d) b.x[r * c.dim + d] += b.change[r * c.dim + d];
        norm(&b.x[r * c.dim], layer.ffn_norm, &b.normed[r * c.dim]);
      });
      product(*layer.gate_up, b.normed, b.gate_up);
      each_row([&](size_t r) {
        const float *gate = &b.gate_up[r * 2 * c.ffn], *up = gate + c.ffn;
        for (int d = 0; d < c.ffn; ++d) b.active[r * c.ffn + d] = gate[d] / (1 + std::exp(-gate[d])) * up[d];
      });
      product(*layer.down, b.active, b.change);
      each_row([&](size_t r) {
        for (int d = 0; d < c.dim; ++d) b.x[r * c.dim + d] += b.change[r * c.dim + d];
      });
    }
    barrier();
    for (int i = part; i < wants; i += parts) norm(&b.x[size_t(want[i]) * c.dim], b.norm, hidden + size_t(i) * c.dim);
  });
}
