// flags:
// Seam `layer`: the transformer's body as one parallel region. Each part keeps the same rows between products, so that residual, norm and
// preparation of the next product need no barrier among them; gate and up are packed block by block, so that whoever computed a block
// applies SiLU to it while it is in the cache; the last layer goes on with the rows that are wanted only.
#include "../../seams/layer.h"
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>
#include "../../seams/linear.h"
#include "../lib/isa.h"
#include "../lib/pages.h"

namespace {
struct Kernels {
  void (*add)(float* x, const float* change, size_t n);
  void (*rms_norm)(const float* x, const float* weight, size_t n, float epsilon, float* out);
  void (*rotate)(float* x, size_t heads, size_t dim, const float* turn);
  void (*gate_with)(const float* gate, const float* up, size_t n, float* out);
};
}  // namespace

#if BUILD_AVX2
#include "../lib/simd-avx2.h"
#include "../lib/float-math.h"
#include "row-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_AVX512
#include "../lib/simd-avx512.h"
#include "../lib/float-math.h"
#include "row-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_PORTABLE
#include "../lib/simd-portable.h"
#include "../lib/float-math.h"
#include "row-kernels.h"
#include "../lib/simd-end.h"
#endif

namespace {
constexpr size_t kMaxRows = 512;  // 25 MB of buffers; more rows a step would not make the products faster
constexpr size_t kPair = 32;      // gate outputs that stand together before their up outputs

const Kernels& kernels() { return SIMD_PICK(kKernels); }

struct Layer {
  Pages<float> attention_norm, ffn_norm;
  Weight *qkv, *out, *gate_up, *down;
};

Pages<float> vector_of(const Tensor& t) {
  Pages<float> values = new_pages<float>(static_cast<size_t>(t.cols));
  dequantise_row(t, 0, values.get());
  return values;
}

// gate and up in turns of kPair rows.
Weight* pack_pairs(const Tensor& gate, const Tensor& up) {
  std::vector<Tensor> slices;
  for (size_t r = 0; r < static_cast<size_t>(gate.rows); r += kPair) {
    for (const Tensor* t : {&gate, &up}) slices.push_back({t->type, static_cast<int>(kPair), t->cols, t->data + r * t->row_bytes()});
  }
  std::vector<const Tensor*> pointers;
  for (const Tensor& t : slices) pointers.push_back(&t);
  return linear_pack(pointers);
}
}  // namespace

struct Body {
  Config c;
  const Tensor* embedding = nullptr;
  size_t dim = 0, ffn = 0, q = 0, kv = 0, head = 0;
  std::vector<Layer> layers;
  bool paired = true;  // every part of gate_up in ffn / kPair parts is one pair of blocks
  Pages<float> norm, turns, x, kept, normed, qkv, attended, change, gate_up, active;
  Pages<uint8_t> scratch;
};

int body_max_rows() { return static_cast<int>(kMaxRows); }

Body* body_load(const Gguf& file, const Config& c) {
  auto b = std::make_unique<Body>();
  b->c = c;
  b->embedding = &file.tensor("token_embd.weight");
  b->dim = static_cast<size_t>(c.dim), b->ffn = static_cast<size_t>(c.ffn), b->head = static_cast<size_t>(c.head_dim);
  b->q = static_cast<size_t>(c.heads) * b->head, b->kv = static_cast<size_t>(c.kv_heads) * b->head;
  if (b->dim % 32 != 0 || b->ffn % 32 != 0 || b->head % 16 != 0) {
    throw std::runtime_error("layer/fused: needs dim and ffn in multiples of 32 and head_dim of 16, got " + std::to_string(c.dim) + ", " +
                             std::to_string(c.ffn) + ", " + std::to_string(c.head_dim));
  }
  size_t scratch = 0;
  const auto pack = [&](Weight* w) {
    scratch = std::max(scratch, linear_scratch(*w, kMaxRows));
    return w;
  };
  for (int i = 0; i < c.layers; i++) {
    const auto tensor = [&](const char* name) -> const Tensor& { return file.tensor("blk." + std::to_string(i) + "." + name + ".weight"); };
    const Tensor* qkv[] = {&tensor("attn_q"), &tensor("attn_k"), &tensor("attn_v")};
    const Tensor* out[] = {&tensor("attn_output")};
    const Tensor* down[] = {&tensor("ffn_down")};
    b->layers.push_back({vector_of(tensor("attn_norm")), vector_of(tensor("ffn_norm")), pack(linear_pack(qkv)), pack(linear_pack(out)),
                         pack(pack_pairs(tensor("ffn_gate"), tensor("ffn_up"))), pack(linear_pack(down))});
  }
  const int units = static_cast<int>(b->ffn / kPair), pair = static_cast<int>(2 * kPair);
  for (int u = 0; u < units; u++) {
    const Range range = linear_range(*b->layers[0].gate_up, u, units);
    b->paired = b->paired && range.first == u * pair && range.last == (u + 1) * pair;
  }
  b->norm = vector_of(file.tensor("output_norm.weight"));
  b->turns = new_pages<float>(static_cast<size_t>(c.context) * b->head * 2);
  for (size_t p = 0; p < static_cast<size_t>(c.context); p++) {
    float* cosines = b->turns.get() + p * b->head * 2;
    for (size_t i = 0; i < b->head; i += 2) {
      const double angle = static_cast<double>(p) * std::pow(static_cast<double>(c.rope_base), -static_cast<double>(i) / c.head_dim);
      cosines[i] = cosines[i + 1] = static_cast<float>(std::cos(angle));
      cosines[b->head + i + 1] = static_cast<float>(std::sin(angle));
      cosines[b->head + i] = -cosines[b->head + i + 1];
    }
  }
  b->scratch = new_pages<uint8_t>(scratch);
  const auto buffer = [](size_t width) { return new_pages<float>(kMaxRows * width); };
  b->x = buffer(b->dim), b->kept = buffer(b->dim), b->normed = buffer(b->dim), b->change = buffer(b->dim);
  b->qkv = buffer(b->q + 2 * b->kv), b->attended = buffer(b->q), b->gate_up = buffer(2 * b->ffn), b->active = buffer(b->ffn);
  return b.release();
}

namespace {
// One forward pass as one part sees it.
struct Pass {
  Body& b;
  const Kernels& f;
  const Row* rows;
  size_t n;  // rows that are still carried on
  const int* want;
  size_t wants;
  int part, parts;
  float* x;  // residual stream of the rows carried on

  size_t first_row() const { return n * static_cast<size_t>(part) / static_cast<size_t>(parts); }
  size_t last_row() const { return n * static_cast<size_t>(part + 1) / static_cast<size_t>(parts); }

  void prepare(const Weight& w, const float* in) {
    linear_prepare(w, in, static_cast<int>(n), b.scratch.get(), part, parts);
    barrier();
  }
  void product(const Weight& w, const float* in, float* out) {
    linear_compute(w, in, b.scratch.get(), static_cast<int>(n), out, part, parts);
    barrier();
  }
  // x += change; normed = norm(x), for this part's rows.
  void norm_rows(const float* change, const float* weight) {
    for (size_t r = first_row(); r < last_row(); r++) {
      if (change != nullptr) f.add(x + r * b.dim, change + r * b.dim, b.dim);
      f.rms_norm(x + r * b.dim, weight, b.dim, b.c.norm_eps, b.normed.get() + r * b.dim);
    }
  }
  void attention(int index) {
    const Layer& layer = b.layers[static_cast<size_t>(index)];
    const size_t width = b.q + 2 * b.kv;
    prepare(*layer.qkv, b.normed.get());
    product(*layer.qkv, b.normed.get(), b.qkv.get());
    for (size_t r = first_row(); r < last_row(); r++) {
      float* row = b.qkv.get() + r * width;
      f.rotate(row, (b.q + b.kv) / b.head, b.head, b.turns.get() + static_cast<size_t>(rows[r].pos) * b.head * 2);
      kv_store(b.c, index, rows + r, 1, row + b.q, row + b.q + b.kv, static_cast<int>(width), 0, 1);
    }
    barrier();
    attend(b.c, index, rows, static_cast<int>(n), b.qkv.get(), static_cast<int>(width), b.attended.get(), part, parts);
    barrier();
  }
  // Copies the wanted rows of x and `attended` to the front of `kept` and `normed`-free space, and goes on with them alone.
  const float* keep_wanted() {
    n = wants;
    for (size_t i = first_row(); i < last_row(); i++) {
      const size_t r = static_cast<size_t>(want[i]);
      std::memcpy(b.kept.get() + i * b.dim, x + r * b.dim, b.dim * sizeof(float));
      std::memcpy(b.qkv.get() + i * b.q, b.attended.get() + r * b.q, b.q * sizeof(float));
    }
    x = b.kept.get();
    return b.qkv.get();
  }
  void feed_forward(const Layer& layer) {
    norm_rows(b.change.get(), layer.ffn_norm.get());
    prepare(*layer.gate_up, b.normed.get());
    const size_t units = b.ffn / kPair;
    if (b.paired) {
      for (size_t u = units * static_cast<size_t>(part) / static_cast<size_t>(parts); u < units * static_cast<size_t>(part + 1) / static_cast<size_t>(parts); u++) {
        linear_compute(*layer.gate_up, b.normed.get(), b.scratch.get(), static_cast<int>(n), b.gate_up.get(), static_cast<int>(u), static_cast<int>(units));
        for (size_t r = 0; r < n; r++) activate(r, u, 1);
      }
      barrier();
    } else {
      product(*layer.gate_up, b.normed.get(), b.gate_up.get());
      for (size_t r = first_row(); r < last_row(); r++) activate(r, 0, units);
    }
    prepare(*layer.down, b.active.get());
    product(*layer.down, b.active.get(), b.change.get());
  }
  void activate(size_t r, size_t unit, size_t count) {
    for (size_t u = unit; u < unit + count; u++) {
      const float* gate = b.gate_up.get() + r * 2 * b.ffn + u * 2 * kPair;
      f.gate_with(gate, gate + kPair, kPair, b.active.get() + r * b.ffn + u * kPair);
    }
  }
  void run(float* hidden) {
    for (size_t r = first_row(); r < last_row(); r++) dequantise_row(*b.embedding, rows[r].token, x + r * b.dim);
    const float* change = nullptr;
    for (int i = 0; i < b.c.layers; i++) {
      const Layer& layer = b.layers[static_cast<size_t>(i)];
      norm_rows(change, layer.attention_norm.get());
      attention(i);
      const float* attended = b.attended.get();
      if (i + 1 == b.c.layers && wants < n) attended = keep_wanted();
      prepare(*layer.out, attended);
      product(*layer.out, attended, b.change.get());
      feed_forward(layer);
      change = b.change.get();
    }
    const bool kept = x == b.kept.get();
    const size_t of = static_cast<size_t>(parts);
    for (size_t i = wants * static_cast<size_t>(part) / of; i < wants * static_cast<size_t>(part + 1) / of; i++) {
      const size_t r = kept ? i : static_cast<size_t>(want[i]);
      f.add(x + r * b.dim, change + r * b.dim, b.dim);
      f.rms_norm(x + r * b.dim, b.norm.get(), b.dim, b.c.norm_eps, hidden + i * b.dim);
    }
  }
};
}  // namespace

void body_forward(Body& b, const Row* rows, int n, const int* want, int wants, float* hidden) {
  parallel([&](int part, int parts) {
    Pass{b, kernels(), rows, static_cast<size_t>(n), want, static_cast<size_t>(wants), part, parts, b.x.get()}.run(hidden);
  });
}
