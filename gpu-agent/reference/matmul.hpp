// Y = X W^T: float32 in, double sums, float32 out; W is dequantised panel by panel while it is multiplied, so no float copy is kept.
#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "dequant.hpp"
#include "kernel.hpp"
#include "workers.hpp"

namespace ref {

// Depth that is multiplied before the next panel slice: R + width columns of it as doubles stay in a 32 KiB L1 cache.
constexpr size_t DEPTH = 192;

// Rows as doubles, R interleaved: [row / R][k][row % R], the last tile filled up with zeros.
class PackedRows {
 public:
  PackedRows(const float* x, size_t rows, size_t cols) : rows_(rows), cols_(cols), tiles_((rows + R - 1) / R), data_(tiles_ * cols * R, 0.0) {
    for (size_t i = 0; i < rows; i++) {
      double* out = data_.data() + (i / R) * cols * R + i % R;
      for (size_t k = 0; k < cols; k++) out[k * R] = static_cast<double>(x[i * cols + k]);
    }
  }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  size_t tiles() const { return tiles_; }
  const double* at(size_t tile, size_t k) const { return data_.data() + (tile * cols_ + k) * R; }

 private:
  size_t rows_, cols_, tiles_;
  std::vector<double> data_;
};

// `width` rows of W from `first` on, transposed to [k][width] doubles; missing rows are zero.
inline void packPanel(const Matrix& w, size_t first, size_t width, std::vector<double>& panel) {
  const size_t cols = w.cols();
  panel.assign(cols * width, 0.0);
  std::vector<float> row(cols);
  for (size_t c = 0; c < width && first + c < w.rows(); c++) {
    w.row(first + c, row.data());
    for (size_t k = 0; k < cols; k++) panel[k * width + c] = static_cast<double>(row[k]);
  }
}

// y is [rows of x][rows of w].
inline void multiply(Workers& workers, const Kernel& kernel, const Matrix& w, const PackedRows& x, float* y) {
  const size_t width = kernel.width, n = w.rows(), depth = w.cols();
  workers.run((n + width - 1) / width, [&](size_t p) {
    thread_local std::vector<double> panel, acc;
    packPanel(w, p * width, width, panel);
    acc.assign(x.tiles() * R * width, 0.0);
    for (size_t k = 0; k < depth; k += DEPTH)
      for (size_t t = 0; t < x.tiles(); t++)
        kernel.tile(std::min(DEPTH, depth - k), x.at(t, k), panel.data() + k * width, acc.data() + t * R * width);
    const size_t cols = std::min(width, n - p * width);
    for (size_t i = 0; i < x.rows(); i++)
      for (size_t c = 0; c < cols; c++) y[i * n + p * width + c] = static_cast<float>(acc[i * width + c]);
  });
}

}  // namespace ref
