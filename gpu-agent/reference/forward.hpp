// All layers over all positions of a batch. Layer by layer, so keys and values of one layer at a time are held.
#pragma once
#include <cmath>
#include <vector>

#include "attention.hpp"
#include "batch.hpp"
#include "matmul.hpp"
#include "model.hpp"
#include "workers.hpp"

namespace ref {

inline void rmsNorm(const float* x, const std::vector<float>& weight, double eps, float* out) {
  const size_t n = weight.size();
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double scale = 1 / std::sqrt(sum / static_cast<double>(n) + eps);
  for (size_t i = 0; i < n; i++) out[i] = static_cast<float>(static_cast<double>(x[i]) * scale * static_cast<double>(weight[i]));
}

// Rotates neighbouring pairs of each head: the order in which GGUF keeps the q and k rows of the llama architecture.
class Rope {
 public:
  explicit Rope(const Model& m) : dims_(m.ropeDims) {
    for (size_t i = 0; i < dims_ / 2; i++) rate_.push_back(std::pow(m.ropeBase, -2.0 * static_cast<double>(i) / static_cast<double>(dims_)));
  }
  void apply(float* x, size_t heads, size_t headDim, uint32_t position) const {
    for (size_t i = 0; i < dims_ / 2; i++) {
      const double angle = static_cast<double>(position) * rate_[i], c = std::cos(angle), s = std::sin(angle);
      for (size_t h = 0; h < heads; h++) {
        float* pair = x + h * headDim + 2 * i;
        const auto a = static_cast<double>(pair[0]), b = static_cast<double>(pair[1]);
        pair[0] = static_cast<float>(a * c - b * s);
        pair[1] = static_cast<float>(a * s + b * c);
      }
    }
  }

 private:
  size_t dims_;
  std::vector<double> rate_;
};

// Returns the normalised hidden state of each node, [node][dim]: what the head multiplies.
inline std::vector<float> forward(const Model& m, const Kernel& kernel, Workers& workers, const Batch& b) {
  const size_t n = b.tokens.size(), dim = m.dim, qDim = m.heads * m.headDim, kvDim = m.kvHeads * m.headDim;
  const Rope rope(m);
  std::vector<float> x(n * dim), h(n * dim), q(n * qDim), k(n * kvDim), v(n * kvDim), mixed(n * qDim), gate(n * m.ffn), up(n * m.ffn);
  const auto norm = [&](const std::vector<float>& weight) {
    workers.run(n, [&](size_t i) { rmsNorm(x.data() + i * dim, weight, m.eps, h.data() + i * dim); });
  };
  const auto add = [&] {
    for (size_t i = 0; i < n * dim; i++) x[i] += h[i];
  };
  for (size_t i = 0; i < n; i++) m.embedding.row(static_cast<uint64_t>(b.tokens[i]), x.data() + i * dim);
  for (const Layer& layer : m.layers) {
    norm(layer.attnNorm);
    {
      const PackedRows rows(h.data(), n, dim);
      multiply(workers, kernel, layer.q, rows, q.data());
      multiply(workers, kernel, layer.k, rows, k.data());
      multiply(workers, kernel, layer.v, rows, v.data());
    }
    workers.run(n, [&](size_t i) {
      rope.apply(q.data() + i * qDim, m.heads, m.headDim, b.depths[i]);
      rope.apply(k.data() + i * kvDim, m.kvHeads, m.headDim, b.depths[i]);
    });
    workers.run(b.paths.size() * m.heads, [&](size_t task) {
      attend(m, kernel, b.paths[task / m.heads], task % m.heads, q.data(), k.data(), v.data(), mixed.data());
    });
    multiply(workers, kernel, layer.out, PackedRows(mixed.data(), n, qDim), h.data());
    add();
    norm(layer.ffnNorm);
    {
      const PackedRows rows(h.data(), n, dim);
      multiply(workers, kernel, layer.gate, rows, gate.data());
      multiply(workers, kernel, layer.up, rows, up.data());
    }
    workers.run(n, [&](size_t i) {
      for (size_t j = i * m.ffn; j < (i + 1) * m.ffn; j++) {
        const auto g = static_cast<double>(gate[j]);
        gate[j] = static_cast<float>(g / (1 + std::exp(-g)) * static_cast<double>(up[j]));
      }
    });
    multiply(workers, kernel, layer.down, PackedRows(gate.data(), n, m.ffn), h.data());
    add();
  }
  norm(m.outNorm);
  return h;
}

}  // namespace ref
