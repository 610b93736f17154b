// flags:
// Seam `linear`: weights stay as they are in the file (4-bit with scale and minimum, or 8-bit with scale), repacked so that one vector holds
// W outputs. Activations become 16-bit integers with one scale a row. (8 bits a block of 32, as llama.cpp does, would be 1.6 times as fast
// with vpmaddubsw, but costs a KL of 3e-3 on SmolLM2: its activations have outliers.) F16 and F32 tensors are requantised to 8 bits.
#include "block-families.h"
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
