// flags:
// Seam `linear`: float32 weights in panels of one vector of outputs, multiplied in tiles of rows and panels. Exact but for the order of sums.
#include "../../seams/linear.h"
#include <cstring>
#include <memory>
#include <vector>
#include "../lib/isa.h"
#include "../lib/pages.h"

namespace {
struct Kernels {
  int width;  // outputs of a panel
  void (*run)(const float* panels, size_t count, size_t k, const float* x, size_t rows, float* y, size_t ldy);
};
}  // namespace

#if BUILD_AVX2
#include "../lib/simd-avx2.h"
#include "float-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_AVX512
#include "../lib/simd-avx512.h"
#include "float-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_PORTABLE
#include "../lib/simd-portable.h"
#include "float-kernels.h"
#include "../lib/simd-end.h"
#endif

namespace {
const Kernels& kernels() { return SIMD_PICK(kKernels); }
}  // namespace

struct Weight {
  size_t outputs = 0, inputs = 0, panels = 0;
  Pages<float> data;  // [panels][inputs][width], the last panel padded with zeros
};

Weight* linear_pack(std::span<const Tensor* const> tensors) {
  auto w = std::make_unique<Weight>();
  w->inputs = static_cast<size_t>(tensors[0]->cols);
  for (const Tensor* t : tensors) w->outputs += static_cast<size_t>(t->rows);
  const size_t width = static_cast<size_t>(kernels().width), k = w->inputs;
  w->panels = (w->outputs + width - 1) / width;
  w->data = new_pages<float>(w->panels * k * width);
  std::vector<float> row(k);
  size_t n = 0;
  for (const Tensor* t : tensors) {
    for (int r = 0; r < t->rows; r++, n++) {
      dequantise_row(*t, r, row.data());
      float* lane = w->data.get() + n / width * k * width + n % width;
      for (size_t i = 0; i < k; i++) lane[i * width] = row[i];
    }
  }
  return w.release();
}

int linear_outputs(const Weight& w) { return static_cast<int>(w.outputs); }
int linear_inputs(const Weight& w) { return static_cast<int>(w.inputs); }
size_t linear_scratch(const Weight&, int) { return 0; }
void linear_prepare(const Weight&, const float*, int, void*, int, int) {}

Range linear_range(const Weight& w, int part, int parts) {
  const size_t p = static_cast<size_t>(part), of = static_cast<size_t>(parts), width = static_cast<size_t>(kernels().width);
  return {static_cast<int>(std::min(w.outputs, w.panels * p / of * width)), static_cast<int>(std::min(w.outputs, w.panels * (p + 1) / of * width))};
}

void linear_compute(const Weight& w, const float* x, const void*, int rows, float* y, int part, int parts) {
  const Kernels& f = kernels();
  const size_t width = static_cast<size_t>(f.width), k = w.inputs, n = static_cast<size_t>(rows);
  const Range range = linear_range(w, part, parts);
  const size_t first = (static_cast<size_t>(range.first) + width - 1) / width, last = static_cast<size_t>(range.last), full = last / width;
  if (full > first) f.run(w.data.get() + first * k * width, full - first, k, x, n, y + first * width, w.outputs);
  if (last > full * width && range.last > range.first) {  // the padded panel: its surplus lanes must not reach the next row
    std::vector<float> whole(n * width);
    f.run(w.data.get() + full * k * width, 1, k, x, n, whole.data(), width);
    for (size_t r = 0; r < n; r++) std::memcpy(y + w.outputs * r + full * width, &whole[r * width], (last - full * width) * sizeof(float));
  }
}
