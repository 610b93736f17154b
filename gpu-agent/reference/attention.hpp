// Causal attention of one head over one sequence: scores and mixing as tiles of the same kernel, softmax in double.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "batch.hpp"
#include "kernel.hpp"
#include "model.hpp"

namespace ref {

// q is [node][heads * headDim] after rotation, k and v [node][kvHeads * headDim], out like q. Writes the path's own positions only.
inline void attend(const Model& m, const Kernel& kernel, const Batch::Path& path, size_t head, const float* q, const float* k, const float* v,
                   float* out) {
  const size_t n = path.nodes.size(), hd = m.headDim, width = kernel.width, kvDim = m.kvHeads * hd;
  const size_t keyPanels = (n + width - 1) / width, valuePanels = (hd + width - 1) / width;
  const size_t kvAt = head / (m.heads / m.kvHeads) * hd;
  const double scale = 1 / std::sqrt(static_cast<double>(hd));
  thread_local std::vector<double> keys, values, query, scores, mix, acc;
  keys.assign(keyPanels * hd * width, 0.0);      // [panel of positions][d][position]
  values.assign(valuePanels * n * width, 0.0);   // [panel of d][position][d]
  for (size_t t = 0; t < n; t++)
    for (size_t d = 0; d < hd; d++) {
      const size_t from = path.nodes[t] * kvDim + kvAt + d;
      keys[(t / width * hd + d) * width + t % width] = static_cast<double>(k[from]);
      values[(d / width * n + t) * width + d % width] = static_cast<double>(v[from]);
    }
  query.resize(hd * R);
  scores.resize(R * keyPanels * width);
  mix.resize(n * R);
  acc.resize(R * width);
  for (size_t p = path.own; p < n; p += R) {
    const size_t rows = std::min(R, n - p), reach = p + rows;
    for (size_t d = 0; d < hd; d++)
      for (size_t r = 0; r < R; r++)
        query[d * R + r] = r < rows ? static_cast<double>(q[(path.nodes[p + r] * m.heads + head) * hd + d]) : 0.0;
    for (size_t panel = 0; panel * width < reach; panel++) {
      std::fill(acc.begin(), acc.end(), 0.0);
      kernel.tile(hd, query.data(), keys.data() + panel * hd * width, acc.data());
      for (size_t r = 0; r < R; r++) std::copy_n(acc.data() + r * width, width, scores.data() + (r * keyPanels + panel) * width);
    }
    double total[R] = {};
    for (size_t r = 0; r < R; r++) {
      const double* s = scores.data() + r * keyPanels * width;
      const size_t visible = r < rows ? p + r + 1 : 0;
      const double top = visible > 0 ? *std::max_element(s, s + visible) : 0.0;
      for (size_t t = 0; t < reach; t++) {
        // Rounded to float32, as every other operand, so that products stay exact.
        const double e = t < visible ? static_cast<double>(static_cast<float>(std::exp((s[t] - top) * scale))) : 0.0;
        mix[t * R + r] = e;
        total[r] += e;
      }
    }
    for (size_t panel = 0; panel < valuePanels; panel++) {
      std::fill(acc.begin(), acc.end(), 0.0);
      kernel.tile(reach, mix.data(), values.data() + panel * n * width, acc.data());
      for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < width && panel * width + c < hd; c++)
          out[(path.nodes[p + r] * m.heads + head) * hd + panel * width + c] = static_cast<float>(acc[r * width + c] / total[r]);
    }
  }
}

}  // namespace ref
