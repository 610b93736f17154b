// Float32 matrix kernel, written once for every vector family (no include guard: included after each simd-<family>.h).
// A panel holds W outputs, [K][W]. A tile is R rows times G panels, so that each load of weights serves R rows and each of activations G panels.

template <int R, int G>
static void float_tile(const float* panel, size_t k, const float* x, float* y, size_t ldy) {
  F acc[R][G];
  for (int r = 0; r < R; r++)
    for (int g = 0; g < G; g++) acc[r][g] = set(0);
  for (size_t i = 0; i < k; i++) {
    F w[G];
    UNROLL for (int g = 0; g < G; g++) w[g] = load(panel + (k * g + i) * W);
    UNROLL for (int r = 0; r < R; r++) {
      const F v = set(x[k * r + i]);
      UNROLL for (int g = 0; g < G; g++) acc[r][g] = fma(w[g], v, acc[r][g]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int g = 0; g < G; g++) store(y + ldy * r + W * g, acc[r][g]);
}

template <int G>
static void float_rows(const float* panel, size_t k, const float* x, size_t rows, float* y, size_t ldy) {
  while (rows != 0) {
    const size_t tiles = (rows + kTileRows - 1) / kTileRows, n = (rows + tiles - 1) / tiles;
    if (n == 1) float_tile<1, G>(panel, k, x, y, ldy);
    else if (n == 2) float_tile<2, G>(panel, k, x, y, ldy);
    else if (n == 3) float_tile<3, G>(panel, k, x, y, ldy);
    else if (n == 4) float_tile<4, G>(panel, k, x, y, ldy);
    else if constexpr (kTileRows > 4) {
      if (n == 5) float_tile<5, G>(panel, k, x, y, ldy);
      else float_tile<6, G>(panel, k, x, y, ldy);
    }
    rows -= n;
    x += k * n;
    y += ldy * n;
  }
}

// Panels [0, count), a pair at a time over a block of rows whose activations stay in the second-level cache.
static void float_panels(const float* panels, size_t count, size_t k, const float* x, size_t rows, float* y, size_t ldy) {
  constexpr size_t kRowBlock = 48;
  for (size_t r = 0; r < rows; r += kRowBlock) {
    const size_t n = rows - r < kRowBlock ? rows - r : kRowBlock;
    size_t p = 0;
    for (; p + 2 <= count; p += 2) float_rows<2>(panels + k * W * p, k, x + k * r, n, y + ldy * r + W * p, ldy);
    if (p < count) float_rows<1>(panels + k * W * p, k, x + k * r, n, y + ldy * r + W * p, ldy);
  }
}

constexpr Kernels kKernels{W, float_panels};
