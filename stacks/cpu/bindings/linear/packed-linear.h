// The seam `linear` over packed weights, for a binding that has defined kernels() (block-types.h).
#pragma once
#include "packed-weights.h"

Weight* linear_pack(std::span<const Tensor* const> tensors) { return pack(tensors, kernels()); }
size_t linear_scratch(const Weight& w, int rows) { return quantised_bytes(w, static_cast<size_t>(rows)); }

void linear_prepare(const Weight& w, const float* x, int rows, void* scratch, int part, int parts) {
  quantise(kernels(), w, x, static_cast<size_t>(rows), scratch, part, parts);
}

void linear_compute(const Weight& w, const float*, const void* scratch, int rows, float* y, int part, int parts) {
  const size_t n = static_cast<size_t>(rows);
  const Quantised x = lay_out(w, const_cast<void*>(scratch), n);
  each_run(w, n, y, part, parts, [&](const Segment& s, size_t panel, size_t count, float* to, size_t ldy) {
    multiply(kernels(), w, s, panel, count, x, n, to, ldy);
  });
}
