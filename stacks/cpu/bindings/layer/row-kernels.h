// The work on single rows between matrix products, written once for every vector family (no include guard).
// Widths are multiples of W: a model whose dim or ffn is not a multiple of 32 is refused when it is loaded.

static void add(float* x, const float* change, size_t n) {
  for (size_t i = 0; i < n; i += W) store(x + i, load(x + i) + load(change + i));
}

// out = x / rms(x) * weight
static void rms_norm(const float* x, const float* weight, size_t n, float epsilon, float* out) {
  F a = set(0), b = set(0);  // two sums side by side: a single chain of additions would wait for itself
  for (size_t i = 0; i < n; i += 2 * W) {
    const F v = load(x + i), u = load(x + i + W);
    a = fma(v, v, a);
    b = fma(u, u, b);
  }
  const F scale = set(1 / std::sqrt(sum(a + b) / static_cast<float>(n) + epsilon));
  for (size_t i = 0; i < n; i += W) store(out + i, load(x + i) * scale * load(weight + i));
}

// Rotates `heads` heads of `dim` values in place, neighbour with neighbour. turn: [dim] cosines, each twice, then [dim] sines, signs -, +.
static void rotate(float* x, size_t heads, size_t dim, const float* turn) {
  for (size_t h = 0; h < heads; h++, x += dim) {
    for (size_t i = 0; i < dim; i += W) {
      const F v = load(x + i);
      store(x + i, fma(swap_pairs(v), load(turn + dim + i), v * load(turn + i)));
    }
  }
}

// out = silu(gate) * up
static void gate_with(const float* gate, const float* up, size_t n, float* out) {
  for (size_t i = 0; i < n; i += W) {
    const F g = load(gate + i);
    store(out + i, g * load(up + i) / (set(1) + exp(min(set(0) - g, set(80)))));
  }
}

constexpr Kernels kKernels{add, rms_norm, rotate, gate_with};
