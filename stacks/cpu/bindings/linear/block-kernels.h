// Matrix kernels over packed panels, written once for every vector family (no include guard: included after each simd-<family>.h).
// A panel holds W outputs. A block is 32 inputs. A tile is R rows times G panels: its rows share each load and unpacking of weights, its
// panels each load of activations; without both, a core's two loads a cycle bound the rate long before its multipliers do.

// 4-bit block, 20 * W bytes: four lines [W outputs][4 bytes], byte i of line j with input 4j + {0, 2, 1, 3}[i] in the low nibble and the
// input 16 after it in the high one, so that each 16-bit half of a shifted word holds two neighbouring inputs; then half d[W], m[W].
// A weight is d * nibble + m.
constexpr int kQ4Block = 20 * W;
// The same block unpacked for many rows, 72 * W bytes: sixteen lines of 16-bit pairs in the order in which they are used, then float d[W], m[W].
constexpr int kWideBlock = 72 * W;
// 8-bit block, 34 * W bytes: sixteen lines [W outputs][2 inputs], then half d[W]; a weight is d * value.
constexpr int kQ8Block = 34 * W;

// What the next panels need is asked for while these are worked on: panels are too short for the hardware's own prefetchers to warm up.
template <int Bytes>
SIMD_FN void fetch(const uint8_t* p) {
  for (int i = 0; i < Bytes; i += 64) __builtin_prefetch(p + i);
}

// ahead: where the panels after these begin, or null. q: 16-bit activations, row r at q + r * k; sums: of each block's activations; s: one scale a row.
template <int R, int G, bool Unpacked>
static void q4_tile(const uint8_t* panel, const uint8_t* ahead, size_t k, const int16_t* q, const float* sums, const float* s, float* y, size_t ldy) {
  constexpr size_t kBlock = Unpacked ? kWideBlock : kQ4Block;
  const size_t stride = k / 32 * kBlock;
  F acc[R][G];
  for (int r = 0; r < R; r++)
    for (int g = 0; g < G; g++) acc[r][g] = set(0);
  for (size_t b = 0; b < k / 32; b++, panel += kBlock, q += 32, sums++) {
    if (ahead != nullptr) fetch<G * kQ4Block>(ahead + G * kQ4Block * b);
    Wide sum[R][G];
    for (int r = 0; r < R; r++)
      for (int g = 0; g < G; g++) sum[r][g] = wide_zero();
    UNROLL for (int j = 0; j < 16; j++) {
      B w[G];
      UNROLL for (int g = 0; g < G; g++)
        w[g] = Unpacked ? load_bytes(panel + stride * g + 4 * W * j) : wide_nibbles(load_bytes(panel + stride * g + 4 * W * (j / 4)), j % 4);
      UNROLL for (int r = 0; r < R; r++) {
        const B x = wide_pair(q + k * r + 4 * (j / 4) + (j & 1) * 16 + (j & 2));
        UNROLL for (int g = 0; g < G; g++) sum[r][g] = wide_step(sum[r][g], w[g], x);
      }
    }
    UNROLL for (int g = 0; g < G; g++) {
      const uint8_t* scales = panel + stride * g + (Unpacked ? 64 : 16) * W;
      const F d = Unpacked ? load(reinterpret_cast<const float*>(scales)) : load_half(reinterpret_cast<const uint16_t*>(scales));
      const F m = Unpacked ? load(reinterpret_cast<const float*>(scales) + W) : load_half(reinterpret_cast<const uint16_t*>(scales) + W);
      UNROLL for (int r = 0; r < R; r++) acc[r][g] = fma(m, set(sums[k / 32 * r]), fma(d, wide_float(sum[r][g]), acc[r][g]));
    }
  }
  for (int r = 0; r < R; r++)
    for (int g = 0; g < G; g++) store(y + ldy * r + W * g, acc[r][g] * set(s[r]));
}

template <int R, int G>
static void q8_tile(const uint8_t* panel, const uint8_t* ahead, size_t k, const int16_t* q, const float* s, float* y, size_t ldy) {
  const size_t stride = k / 32 * kQ8Block;
  F acc[R][G];
  for (int r = 0; r < R; r++)
    for (int g = 0; g < G; g++) acc[r][g] = set(0);
  for (size_t b = 0; b < k / 32; b++, panel += kQ8Block, q += 32) {
    if (ahead != nullptr) fetch<G * kQ8Block>(ahead + G * kQ8Block * b);
    Wide sum[R][G];
    for (int r = 0; r < R; r++)
      for (int g = 0; g < G; g++) sum[r][g] = wide_zero();
    UNROLL for (int j = 0; j < 16; j++) {
      B w[G];
      UNROLL for (int g = 0; g < G; g++) w[g] = wide_weights(panel + stride * g + 2 * W * j);
      UNROLL for (int r = 0; r < R; r++) {
        const B x = wide_pair(q + k * r + 2 * j);
        UNROLL for (int g = 0; g < G; g++) sum[r][g] = wide_step(sum[r][g], w[g], x);
      }
    }
    UNROLL for (int g = 0; g < G; g++) {
      const F d = load_half(reinterpret_cast<const uint16_t*>(panel + stride * g + 32 * W));
      UNROLL for (int r = 0; r < R; r++) acc[r][g] = fma(d, wide_float(sum[r][g]), acc[r][g]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int g = 0; g < G; g++) store(y + ldy * r + W * g, acc[r][g] * set(s[r]));
}

// All rows over one or two panels, in tiles of nearly equal height: five rows go as 3 + 2, because a tile of one row costs almost as much as two.
template <int G, bool Unpacked>
static void q4_rows(const uint8_t* panel, size_t k, const Quantised& x, size_t first, size_t rows, float* y, size_t ldy) {
  for (size_t left = rows, r = first; left != 0;) {
    const size_t tiles = (left + kTileRows - 1) / kTileRows, n = (left + tiles - 1) / tiles;
    const int16_t* q = x.words + k * r;
    const float *sums = x.sums + k / 32 * r, *s = x.scales + r;
    float* to = y + ldy * r;
    const uint8_t* ahead = !Unpacked && r == first ? panel + k / 32 * kQ4Block * G : nullptr;
    if (n == 1) q4_tile<1, G, Unpacked>(panel, ahead, k, q, sums, s, to, ldy);
    else if (n == 2) q4_tile<2, G, Unpacked>(panel, ahead, k, q, sums, s, to, ldy);
    else if (n == 3) q4_tile<3, G, Unpacked>(panel, ahead, k, q, sums, s, to, ldy);
    else if (n == 4) q4_tile<4, G, Unpacked>(panel, ahead, k, q, sums, s, to, ldy);
    else if constexpr (kTileRows > 4) {
      if (n == 5) q4_tile<5, G, Unpacked>(panel, ahead, k, q, sums, s, to, ldy);
      else q4_tile<6, G, Unpacked>(panel, ahead, k, q, sums, s, to, ldy);
    }
    r += n;
    left -= n;
  }
}
template <int G>
static void q8_rows(const uint8_t* panel, size_t k, const Quantised& x, size_t first, size_t rows, float* y, size_t ldy) {
  for (size_t left = rows, r = first; left != 0;) {
    const size_t tiles = (left + kTileRows - 1) / kTileRows, n = (left + tiles - 1) / tiles;
    const int16_t* q = x.words + k * r;
    const float* s = x.scales + r;
    float* to = y + ldy * r;
    const uint8_t* ahead = r == first ? panel + k / 32 * kQ8Block * G : nullptr;
    if (n == 1) q8_tile<1, G>(panel, ahead, k, q, s, to, ldy);
    else if (n == 2) q8_tile<2, G>(panel, ahead, k, q, s, to, ldy);
    else if (n == 3) q8_tile<3, G>(panel, ahead, k, q, s, to, ldy);
    else if (n == 4) q8_tile<4, G>(panel, ahead, k, q, s, to, ldy);
    else if constexpr (kTileRows > 4) {
      if (n == 5) q8_tile<5, G>(panel, ahead, k, q, s, to, ldy);
      else q8_tile<6, G>(panel, ahead, k, q, s, to, ldy);
    }
    r += n;
    left -= n;
  }
}

// Panels [0, count) of one weight: each pair is read from memory once for a block of rows whose activations stay in the second-level cache.
constexpr size_t kRowBlock = 128;
constexpr size_t kUnpackFrom = 48;  // rows that repay writing and reading a panel four times as large
static void unpack(const uint8_t* panel, size_t k, uint8_t* to) {
  for (size_t b = 0; b < k / 32; b++, panel += kQ4Block, to += kWideBlock) {
    UNROLL for (int j = 0; j < 16; j++) store_bytes(to + 4 * W * j, wide_nibbles(load_bytes(panel + 4 * W * (j / 4)), j % 4));
    store(reinterpret_cast<float*>(to + 64 * W), load_half(reinterpret_cast<const uint16_t*>(panel + 16 * W)));
    store(reinterpret_cast<float*>(to + 64 * W) + W, load_half(reinterpret_cast<const uint16_t*>(panel + 18 * W)));
  }
}
static void q4_panels(const uint8_t* panels, size_t count, size_t k, const Quantised& x, size_t rows, float* y, size_t ldy) {
  const size_t stride = k / 32 * kQ4Block, wide_stride = k / 32 * kWideBlock;
  thread_local Pages<uint8_t> wide;
  thread_local size_t wide_size = 0;
  if (rows >= kUnpackFrom && wide_size < 2 * wide_stride) wide = new_pages<uint8_t>(wide_size = 2 * wide_stride);
  for (size_t r = 0; r < rows; r += kRowBlock) {
    const size_t n = rows - r < kRowBlock ? rows - r : kRowBlock;
    for (size_t p = 0; p < count;) {
      const uint8_t* panel = panels + stride * p;
      const bool two = p + 2 <= count;
      if (n >= kUnpackFrom) {
        unpack(panel, k, wide.get());
        if (two) unpack(panel + stride, k, wide.get() + wide_stride);
        if (two) q4_rows<2, true>(wide.get(), k, x, r, n, y + W * p, ldy);
        else q4_rows<1, true>(wide.get(), k, x, r, n, y + W * p, ldy);
      } else if (two) {
        q4_rows<2, false>(panel, k, x, r, n, y + W * p, ldy);
      } else {
        q4_rows<1, false>(panel, k, x, r, n, y + W * p, ldy);
      }
      p += two ? 2 : 1;
    }
  }
}
static void q8_panels(const uint8_t* panels, size_t count, size_t k, const Quantised& x, size_t rows, float* y, size_t ldy) {
  const size_t stride = k / 32 * kQ8Block;
  for (size_t r = 0; r < rows; r += kRowBlock) {
    const size_t n = rows - r < kRowBlock ? rows - r : kRowBlock;
    size_t p = 0;
    for (; p + 2 <= count; p += 2) q8_rows<2>(panels + stride * p, k, x, r, n, y + W * p, ldy);
    if (p < count) q8_rows<1>(panels + stride * p, k, x, r, n, y + W * p, ldy);
  }
}

// One row of k activations to 16 bits with one scale; sums receives the sum of each block of 32.
static void quantise_row(const float* x, size_t k, int16_t* q, float* sums, float* s) {
  F top = set(0);
  for (size_t i = 0; i < k; i += W) top = max(top, abs(load(x + i)));
  const float peak = highest(top), inverse = peak > 0 ? 32767 / peak : 0;
  for (size_t b = 0; b < k / 32; b++) {
    F total = set(0);
    for (size_t i = 32 * b; i < 32 * b + 32; i += W) {
      const F v = round(load(x + i) * set(inverse));
      store_i16(q + i, v);
      total = total + v;
    }
    sums[b] = sum(total);
  }
  *s = peak / 32767;
}

constexpr Kernels kKernels{W, kQ4Block, kQ8Block, q4_panels, q8_panels, quantise_row};
