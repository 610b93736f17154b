// flags:
// Seam `linear`: weights stay as they are in the file (4-bit with scale and minimum, or 8-bit with scale), repacked so that one vector holds
// W outputs. Activations become 16-bit integers with one scale a row. (8 bits a block of 32, as llama.cpp does, would be 1.6 times as fast
// with vpmaddubsw, but costs a KL of 3e-3 on SmolLM2: its activations have outliers.) F16 and F32 tensors are requantised to 8 bits.
#include "../../seams/linear.h"
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>
#include "../lib/half.h"
#include "../lib/isa.h"
#include "../lib/pages.h"
#include "block-types.h"

#if defined(__x86_64__)
#include "../lib/simd-avx2.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"
#endif

namespace {
const Kernels& kernels() {
  return avx2::kKernels;
}

enum class Kind { q4, q8 };

// Neighbouring rows of one kind. The last panel is padded with zeros.
struct Segment {
  Kind kind;
  size_t outputs = 0, panels = 0;
  size_t first_output = 0, first_panel = 0;  // in the weight
  Pages<uint8_t> data;
};

struct RowSource {
  const uint8_t* data;
  Type type;
};

Kind kind_of(Type t) { return t == Type::Q4_0 || t == Type::Q4_1 ? Kind::q4 : Kind::q8; }

// Copies one block of 32 weights of one output into lane `lane` of a packed block.
void pack_q4(const uint8_t* from, Type type, uint8_t* block, size_t lane, size_t w) {
  uint16_t d = 0, m = 0;
  std::memcpy(&d, from, 2);
  if (type == Type::Q4_1) std::memcpy(&m, from + 2, 2);
  else m = float_to_half(-8 * half_to_float(d));  // exact: a power of two times d
  const uint8_t* nibbles = from + (type == Type::Q4_1 ? 4 : 2);
  for (size_t j = 0; j < 4; j++) {
    uint8_t* line = block + 4 * w * j + 4 * lane;
    line[0] = nibbles[4 * j], line[1] = nibbles[4 * j + 2], line[2] = nibbles[4 * j + 1], line[3] = nibbles[4 * j + 3];
  }
  std::memcpy(block + 16 * w + 2 * lane, &d, 2);
  std::memcpy(block + 18 * w + 2 * lane, &m, 2);
}
void pack_q8(const int8_t* values, uint16_t d, uint8_t* block, size_t lane, size_t w) {
  for (size_t j = 0; j < 16; j++) std::memcpy(block + 2 * w * j + 2 * lane, values + 2 * j, 2);
  std::memcpy(block + 32 * w + 2 * lane, &d, 2);
}
void requantise(const float* x, uint8_t* block, size_t lane, size_t w) {
  float peak = 0;
  for (int i = 0; i < 32; i++) peak = std::max(peak, std::fabs(x[i]));
  const uint16_t d = float_to_half(peak / 127);
  const float scale = half_to_float(d);
  int8_t values[32];
  for (int i = 0; i < 32; i++) values[i] = static_cast<int8_t>(scale > 0 ? std::lrint(std::min(127.0f, std::max(-127.0f, x[i] / scale))) : 0);
  pack_q8(values, d, block, lane, w);
}
}  // namespace

struct Weight {
  size_t outputs = 0, inputs = 0, panels = 0;
  std::vector<Segment> segments;
};

namespace {
void pack_segment(Segment& s, const std::vector<RowSource>& rows, size_t k) {
  const Kernels& f = kernels();
  const size_t w = static_cast<size_t>(f.width), blocks = k / 32;
  const size_t block_bytes = static_cast<size_t>(s.kind == Kind::q4 ? f.q4_block : f.q8_block);
  s.outputs = rows.size();
  s.panels = (rows.size() + w - 1) / w;
  s.data = new_pages<uint8_t>(s.panels * blocks * block_bytes);
  for (size_t r = 0; r < rows.size(); r++) {
    std::vector<float> values(rows[r].type == Type::F16 || rows[r].type == Type::F32 ? k : 0);
    if (!values.empty()) dequantise_row(Tensor{rows[r].type, 1, static_cast<int>(k), rows[r].data}, 0, values.data());
    for (size_t b = 0; b < blocks; b++) {
      uint8_t* block = s.data.get() + (r / w * blocks + b) * block_bytes;
      const size_t lane = r % w;
      switch (rows[r].type) {
        case Type::Q4_0: pack_q4(rows[r].data + 18 * b, Type::Q4_0, block, lane, w); break;
        case Type::Q4_1: pack_q4(rows[r].data + 20 * b, Type::Q4_1, block, lane, w); break;
        case Type::Q8_0: {
          uint16_t d;
          std::memcpy(&d, rows[r].data + 34 * b, 2);
          pack_q8(reinterpret_cast<const int8_t*>(rows[r].data + 34 * b + 2), d, block, lane, w);
          break;
        }
        default: requantise(&values[32 * b], block, lane, w);
      }
    }
  }
}

Quantised lay_out(const Weight& w, void* scratch, size_t rows) {
  int16_t* words = static_cast<int16_t*>(scratch);  // k is a multiple of 32: what follows the words is aligned too
  float* sums = reinterpret_cast<float*>(words + rows * w.inputs);
  return {words, sums, sums + rows * w.inputs / 32};
}
}  // namespace

Weight* linear_pack(std::span<const Tensor* const> tensors) {
  const size_t k = static_cast<size_t>(tensors[0]->cols);
  if (k % 32 != 0) throw std::runtime_error("linear/q4-int8: inputs must be a multiple of 32, got " + std::to_string(k));
  auto w = std::make_unique<Weight>();
  w->inputs = k;
  std::vector<RowSource> rows;
  const auto close_segment = [&] {
    if (rows.empty()) return;
    Segment s{kind_of(rows[0].type), 0, 0, w->outputs, w->panels, nullptr};
    pack_segment(s, rows, k);
    w->outputs += s.outputs;
    w->panels += s.panels;
    w->segments.push_back(std::move(s));
    rows.clear();
  };
  for (const Tensor* t : tensors) {
    if (!rows.empty() && kind_of(t->type) != kind_of(rows[0].type)) close_segment();
    for (int r = 0; r < t->rows; r++) rows.push_back({t->data + static_cast<size_t>(r) * t->row_bytes(), t->type});
  }
  close_segment();
  return w.release();
}

int linear_outputs(const Weight& w) { return static_cast<int>(w.outputs); }
int linear_inputs(const Weight& w) { return static_cast<int>(w.inputs); }
size_t linear_scratch(const Weight& w, int rows) {
  return static_cast<size_t>(rows) * (w.inputs * sizeof(int16_t) + (w.inputs / 32 + 1) * sizeof(float));
}

void linear_prepare(const Weight& w, const float* x, int rows, void* scratch, int part, int parts) {
  const size_t n = static_cast<size_t>(rows), k = w.inputs;
  const Quantised q = lay_out(w, scratch, n);
  for (size_t r = n * static_cast<size_t>(part) / static_cast<size_t>(parts); r < n * static_cast<size_t>(part + 1) / static_cast<size_t>(parts); r++)
    kernels().quantise_row(x + k * r, k, q.words + k * r, q.sums + k / 32 * r, q.scales + r);
}

namespace {
// Index of the first output of a panel of the weight.
size_t output_of(const Weight& w, size_t panel) {
  for (const Segment& s : w.segments) {
    if (panel < s.first_panel + s.panels) return s.first_output + (panel - s.first_panel) * static_cast<size_t>(kernels().width);
  }
  return w.outputs;
}
}  // namespace

Range linear_range(const Weight& w, int part, int parts) {
  const size_t p = static_cast<size_t>(part), of = static_cast<size_t>(parts);
  return {static_cast<int>(output_of(w, w.panels * p / of)), static_cast<int>(output_of(w, w.panels * (p + 1) / of))};
}

void linear_compute(const Weight& w, const float*, const void* scratch, int rows, float* y, int part, int parts) {
  const Kernels& f = kernels();
  const size_t n = static_cast<size_t>(rows), k = w.inputs, width = static_cast<size_t>(f.width);
  const Quantised l = lay_out(w, const_cast<void*>(scratch), n);
  const size_t first = w.panels * static_cast<size_t>(part) / static_cast<size_t>(parts);
  const size_t last = w.panels * static_cast<size_t>(part + 1) / static_cast<size_t>(parts);
  for (const Segment& s : w.segments) {
    const size_t from = std::max(first, s.first_panel) - s.first_panel, end = std::min(last, s.first_panel + s.panels);
    if (end <= s.first_panel + from) continue;
    const size_t to = end - s.first_panel, full = std::min(to, s.outputs / width);
    const auto run = s.kind == Kind::q4 ? f.q4 : f.q8;
    const size_t stride = k / 32 * static_cast<size_t>(s.kind == Kind::q4 ? f.q4_block : f.q8_block);
    float* out = y + s.first_output;
    if (full > from) run(s.data.get() + stride * from, full - from, k, l, n, out + from * width, w.outputs);
    if (to > full) {  // the padded panel: its surplus lanes must not reach the next outputs
      std::vector<float> whole(n * width);
      run(s.data.get() + stride * full, 1, k, l, n, whole.data(), width);
      for (size_t r = 0; r < n; r++) std::memcpy(out + w.outputs * r + full * width, &whole[r * width], (s.outputs - full * width) * sizeof(float));
    }
  }
}
