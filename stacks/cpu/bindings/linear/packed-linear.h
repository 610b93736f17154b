// The seam `linear` over packed weights, for a binding that has defined kernels() (block-types.h).
#pragma once
#include "packed-weights.h"

Weight* linear_pack(std::span<const Tensor* const> tensors) { return pack(tensors, kernels()); }
int linear_outputs(const Weight& w) { return static_cast<int>(w.outputs); }
int linear_inputs(const Weight& w) { return static_cast<int>(w.inputs); }
size_t linear_scratch(const Weight& w, int rows) { return quantised_bytes(w, static_cast<size_t>(rows)); }

void linear_prepare(const Weight& w, const float* x, int rows, void* scratch, int part, int parts) {
  quantise(kernels(), w, x, static_cast<size_t>(rows), scratch, part, parts);
}

Range linear_range(const Weight& w, int part, int parts) {
  const size_t p = static_cast<size_t>(part), of = static_cast<size_t>(parts);
  return {static_cast<int>(output_of(w, w.panels * p / of)), static_cast<int>(output_of(w, w.panels * (p + 1) / of))};
}

void linear_compute(const Weight& w, const float*, const void* scratch, int rows, float* y, int part, int parts) {
  const size_t n = static_cast<size_t>(rows);
  const Quantised x = lay_out(w, const_cast<void*>(scratch), n);
  each_run(w, n, y, part, parts, [&](const Segment& s, size_t panel, size_t count, float* to, size_t ldy) {
    multiply(kernels(), w, s, panel, count, x, n, to, ldy);
  });
}
