// Attention over packed keys and values, written once for every vector family (no include guard).
// Q queries that share a KV head go through the cache together: each vector of keys or values is loaded and widened once for all of them.

constexpr size_t kVectors = W < 16 ? 16 / W : 2;  // vectors of positions held at once; two at least, to hide the latency of the sums

// s[i][position] = q[i] . key(position) for positions 0 … count - 1 (a multiple of 32). keys: see packed.cpp. q: [Q][dim].
template <int Q>
static void scores(const uint32_t* keys, size_t dim, size_t count, const float* q, float* s, size_t lds) {
  constexpr size_t kStep = kVectors * W;
  for (size_t p = 0; p < count; p += kStep) {
    F sum[Q][kVectors];
    for (int i = 0; i < Q; i++)
      for (size_t c = 0; c < kVectors; c++) sum[i][c] = set(0);
    for (size_t d = 0; d < dim / 2; d++) {
      UNROLL for (size_t c = 0; c < kVectors; c++) {
        const size_t position = p + c * W;
        const Pairs pair = load_pairs(keys + position / 16 * dim * 8 + d * 16 + position % 16);
        const F a = even(pair), b = odd(pair);
        UNROLL for (int i = 0; i < Q; i++) sum[i][c] = fma(b, set(q[dim * i + 2 * d + 1]), fma(a, set(q[dim * i + 2 * d]), sum[i][c]));
      }
    }
    for (int i = 0; i < Q; i++)
      for (size_t c = 0; c < kVectors; c++) store(s + lds * i + p + c * W, sum[i][c]);
  }
}

// s[0 … count) becomes e^(s - highest), what follows up to `padded` zero. Returns 1 / sum. padded is a multiple of 32.
static float soften(float* s, size_t count, size_t padded) {
  for (size_t i = count; i < padded; i++) s[i] = -1e30f;
  F top = load(s);
  for (size_t i = W; i < padded; i += W) top = max(top, load(s + i));
  const F most = set(highest(top));
  F total = set(0);
  for (size_t i = 0; i < padded; i += W) {
    const F e = exp(load(s + i) - most);
    store(s + i, e);
    total = total + e;
  }
  for (size_t i = count; i < padded; i++) s[i] = 0;  // exp() clamps: these are e^-87, not zero
  return 1 / sum(total);
}

template <int Q, size_t C>
static void add_values(const uint32_t* values, size_t dim, size_t pairs, const float* p, size_t ldp, float* out) {
  F sum[Q][C];
  for (int i = 0; i < Q; i++)
    for (size_t c = 0; c < C; c++) sum[i][c] = load(out + dim * i + W * c);
  for (size_t j = 0; j < pairs; j++) {
    F a[C], b[C];
    UNROLL for (size_t c = 0; c < C; c++) {
      const Pairs pair = load_pairs(values + dim * j + W * c);
      a[c] = even(pair);
      b[c] = odd(pair);
    }
    UNROLL for (int i = 0; i < Q; i++) {
      const F first = set(p[ldp * i + 2 * j]), second = set(p[ldp * i + 2 * j + 1]);
      UNROLL for (size_t c = 0; c < C; c++) sum[i][c] = fma(b[c], second, fma(a[c], first, sum[i][c]));
    }
  }
  for (int i = 0; i < Q; i++)
    for (size_t c = 0; c < C; c++) store(out + dim * i + W * c, sum[i][c]);
}

// out[i][d] = inverse[i] * sum over positions of p[i][position] * value(position)[d].
template <int Q>
static void weigh(const uint32_t* values, size_t dim, size_t count, const float* p, size_t ldp, const float* inverse, float* out) {
  for (size_t i = 0; i < Q * dim; i++) out[i] = 0;
  constexpr size_t kBlock = 64;  // pairs of positions whose values stay in the first-level cache while the dimensions pass over them
  for (size_t j = 0; j < count / 2; j += kBlock) {
    const size_t pairs = count / 2 - j < kBlock ? count / 2 - j : kBlock;
    const uint32_t* from = values + dim * j;
    size_t d = 0;
    for (; d + 2 * W <= dim; d += 2 * W) add_values<Q, 2>(from + d, dim, pairs, p + 2 * j, ldp, out + d);
    if (d < dim) add_values<Q, 1>(from + d, dim, pairs, p + 2 * j, ldp, out + d);
  }
  for (int i = 0; i < Q; i++)
    for (size_t d = 0; d < dim; d += W) store(out + dim * i + d, load(out + dim * i + d) * set(inverse[i]));
}

// One tile: Q scaled queries [Q][dim], query i over the first counts[i] positions; padded covers the longest, in a multiple of 32.
template <int Q>
static void tile(const uint32_t* keys, const uint32_t* values, size_t dim, const size_t* counts, size_t padded, const float* q, float* s, float* out) {
  float inverse[Q];
  scores<Q>(keys, dim, padded, q, s, padded);
  for (int i = 0; i < Q; i++) inverse[i] = soften(s + padded * i, counts[i], padded);
  weigh<Q>(values, dim, padded, s, padded, inverse, out);
}

constexpr Kernels kKernels{{tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>}};
