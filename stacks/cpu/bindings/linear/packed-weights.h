// Weights as the block kernels read them: packed from the file's blocks without loss, in segments of one kind.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>
#include "../../seams/linear.h"
#include "../lib/half.h"
#include "../lib/pages.h"
#include "block-types.h"

enum class Kind { q4, q8 };

// Neighbouring outputs of one kind. The last panel is padded with zeros.
struct Segment {
  Kind kind;
  size_t outputs = 0, panels = 0;
  size_t first_output = 0, first_panel = 0;  // in the weight
  Pages<uint8_t> data;
};

struct Weight {
  size_t outputs = 0, inputs = 0, panels = 0, width = 0;
  std::vector<Segment> segments;
};

namespace {
struct RowSource {
  const uint8_t* data;
  Type type;
};

Kind kind_of(Type t) { return t == Type::Q4_0 || t == Type::Q4_1 ? Kind::q4 : Kind::q8; }

// These copy one block of 32 weights of one output into lane `lane` of a packed block.
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
void pack_q8(const uint8_t* values, uint16_t d, uint8_t* block, size_t lane, size_t w) {
  for (size_t j = 0; j < 16; j++) std::memcpy(block + 2 * w * j + 2 * lane, values + 2 * j, 2);
  std::memcpy(block + 32 * w + 2 * lane, &d, 2);
}
void pack_floats(const float* x, uint8_t* block, size_t lane, size_t w) {  // requantised: 8 bits with one scale
  float peak = 0;
  for (int i = 0; i < 32; i++) peak = std::max(peak, std::fabs(x[i]));
  const uint16_t d = float_to_half(peak / 127);
  const float scale = half_to_float(d);
  uint8_t values[32];
  for (int i = 0; i < 32; i++) {
    const long v = scale > 0 ? std::lrint(x[i] / scale) : 0;
    values[i] = static_cast<uint8_t>(static_cast<int8_t>(std::clamp(v, -127L, 127L)));
  }
  pack_q8(values, d, block, lane, w);
}

void pack_segment(Segment& s, const std::vector<RowSource>& rows, size_t k, const Kernels& f) {
  const size_t w = static_cast<size_t>(f.width), blocks = k / 32;
  const size_t block_bytes = static_cast<size_t>(s.kind == Kind::q4 ? f.q4_block : f.q8_block);
  s.outputs = rows.size();
  s.panels = (rows.size() + w - 1) / w;
  s.data = new_pages<uint8_t>(s.panels * blocks * block_bytes);
  std::vector<float> values(k);
  for (size_t r = 0; r < rows.size(); r++) {
    const auto [from, type] = rows[r];
    const bool floats = type == Type::F16 || type == Type::F32;
    if (floats) dequantise_row(Tensor{type, 1, static_cast<int>(k), from}, 0, values.data());
    for (size_t b = 0; b < blocks; b++) {
      uint8_t* block = s.data.get() + (r / w * blocks + b) * block_bytes;
      if (floats) {
        pack_floats(&values[32 * b], block, r % w, w);
      } else if (type == Type::Q8_0) {
        uint16_t d;
        std::memcpy(&d, from + 34 * b, 2);
        pack_q8(from + 34 * b + 2, d, block, r % w, w);
      } else {
        pack_q4(from + (type == Type::Q4_1 ? 20 : 18) * b, type, block, r % w, w);
      }
    }
  }
}

Weight* pack(std::span<const Tensor* const> tensors, const Kernels& f) {
  auto w = std::make_unique<Weight>();
  w->inputs = static_cast<size_t>(tensors[0]->cols);
  w->width = static_cast<size_t>(f.width);
  if (w->inputs % 32 != 0) throw std::runtime_error("linear: inputs must be a multiple of 32, got " + std::to_string(w->inputs));
  std::vector<RowSource> rows;
  const auto close_segment = [&] {
    if (rows.empty()) return;
    Segment s{kind_of(rows[0].type), 0, 0, w->outputs, w->panels, nullptr};
    pack_segment(s, rows, w->inputs, f);
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

// The first output of a panel.
size_t output_of(const Weight& w, size_t panel) {
  for (const Segment& s : w.segments) {
    if (panel < s.first_panel + s.panels) return s.first_output + (panel - s.first_panel) * w.width;
  }
  return w.outputs;
}

// Calls run(segment, first panel in it, panels, y, ldy) for what `part` computes. A padded panel goes through a buffer, because its surplus
// lanes must not reach the outputs after it.
template <class Run>
void each_run(const Weight& w, size_t rows, float* y, int part, int parts, Run&& run) {
  const size_t first = w.panels * static_cast<size_t>(part) / static_cast<size_t>(parts);
  const size_t last = w.panels * static_cast<size_t>(part + 1) / static_cast<size_t>(parts);
  for (const Segment& s : w.segments) {
    if (last <= s.first_panel || first >= s.first_panel + s.panels) continue;
    const size_t from = std::max(first, s.first_panel) - s.first_panel, to = std::min(last - s.first_panel, s.panels);
    const size_t full = std::min(to, s.outputs / w.width);
    if (full > from) run(s, from, full - from, y + s.first_output + from * w.width, w.outputs);
    if (to > full) {
      std::vector<float> whole(rows * w.width);
      run(s, full, size_t{1}, whole.data(), w.width);
      const size_t valid = s.outputs - full * w.width;
      for (size_t r = 0; r < rows; r++) std::memcpy(y + w.outputs * r + s.first_output + full * w.width, &whole[r * w.width], valid * sizeof(float));
    }
  }
}

// Where the prepared activations of `rows` rows lie in the scratch.
Quantised lay_out(const Weight& w, void* scratch, size_t rows) {
  int16_t* words = static_cast<int16_t*>(scratch);  // inputs are a multiple of 32: what follows the words is aligned too
  float* sums = reinterpret_cast<float*>(words + rows * w.inputs);
  return {words, sums, sums + rows * w.inputs / 32};
}
size_t quantised_bytes(const Weight& w, size_t rows) { return rows * (w.inputs * sizeof(int16_t) + (w.inputs / 32 + 1) * sizeof(float)); }

void quantise(const Kernels& f, const Weight& w, const float* x, size_t rows, void* scratch, int part, int parts) {
  const Quantised q = lay_out(w, scratch, rows);
  const size_t k = w.inputs, of = static_cast<size_t>(parts);
  for (size_t r = rows * static_cast<size_t>(part) / of; r < rows * static_cast<size_t>(part + 1) / of; r++)
    f.quantise_row(x + k * r, k, q.words + k * r, q.sums + k / 32 * r, q.scales + r);
}

void multiply(const Kernels& f, const Weight& w, const Segment& s, size_t panel, size_t count, const Quantised& x, size_t rows, float* y, size_t ldy) {
  const bool q4 = s.kind == Kind::q4;
  const size_t stride = w.inputs / 32 * static_cast<size_t>(q4 ? f.q4_block : f.q8_block);
  (q4 ? f.q4 : f.q8)(s.data.get() + stride * panel, count, w.inputs, x, rows, y, ldy);
}
}  // namespace

// What the seam asks of a weight itself, whoever multiplies it.
int linear_outputs(const Weight& w) { return static_cast<int>(w.outputs); }
int linear_inputs(const Weight& w) { return static_cast<int>(w.inputs); }
Range linear_range(const Weight& w, int part, int parts) {
  const size_t p = static_cast<size_t>(part), of = static_cast<size_t>(parts);
  return {static_cast<int>(output_of(w, w.panels * p / of)), static_cast<int>(output_of(w, w.panels * (p + 1) / of))};
}
