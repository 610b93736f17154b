// Seed: float32 weights, row by row as in the file; four outputs at a time, so that four sums run side by side.
#include "../seams/linear.h"
#include <vector>

struct Weight {
  int outputs = 0, inputs = 0;
  std::vector<float> values;  // [outputs][inputs]
};

Weight* linear_pack(std::span<const Tensor* const> tensors) {
  Weight* w = new Weight;
  for (const Tensor* t : tensors) {
    w->values.resize(w->values.size() + size_t(t->rows) * t->cols);
    w->inputs = t->cols;
    for (int row = 0; row < t->rows; ++row) dequantise_row(*t, row, &w->values[size_t(w->outputs++) * t->cols]);
  }
  return w;
}

int linear_outputs(const Weight& w) { return w.outputs; }
int linear_inputs(const Weight& w) { return w.inputs; }
size_t linear_scratch(const Weight&, int) { return 0; }
void linear_prepare(const Weight&, const float*, int, void*, int, int) {}

Range linear_range(const Weight& w, int part, int parts) {
  const auto edge = [&](int p) { return int(int64_t(w.outputs) * p / parts / 4 * 4); };
  return {edge(part), part + 1 == parts ? w.outputs : edge(part + 1)};
}

void linear_compute(const Weight& w, const float* x, const void*, int rows, float* y, int part, int parts) {
  const auto [first, last] = linear_range(w, part, parts);
  const size_t k = w.inputs;
  for (int n = first; n < last; n += 4) {
    const float* a = &w.values[n * k];  // the last block may hold fewer than four outputs: it computes its first one again
    const size_t b = n + 1 < last ? k : 0, c = n + 2 < last ? 2 * k : 0, d = n + 3 < last ? 3 * k : 0;
    for (int r = 0; r < rows; ++r) {
      const float* in = x + r * k;
      float sums[4] = {};
      for (size_t i = 0; i < k; ++i) sums[0] += a[i] * in[i], sums[1] += a[b + i] * in[i], sums[2] += a[c + i] * in[i], sums[3] += a[d + i] * in[i];
      for (int i = 0; i < 4 && n + i < last; ++i) y[size_t(r) * w.outputs + n + i] = sums[i];
    }
  }
}
