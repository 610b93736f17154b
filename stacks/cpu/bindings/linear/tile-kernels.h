// Matrix tiles (AMX) of bfloat16 over packed 4-bit panels of 16 outputs. Compiled inside `namespace tiles`, whose target has AMX.
// A panel is unpacked to bfloat16 once for a block of rows: block b becomes the 1 KB that a tile register holds, row i of it the inputs
// 2i, 2i + 1 of sixteen outputs.

struct alignas(64) TileShape {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

static void open_tiles() {
  static const TileShape shape;
  asm volatile("" ::"r"(&shape) : "memory");  // gcc 12 thinks that the instruction reads 8 bytes of it
  _tile_loadconfig(&shape);
}

static inline __attribute__((always_inline)) __m512 widen(__m512i nibbles, int half) {
  const __m256i part = half == 0 ? _mm512_castsi512_si256(nibbles) : _mm512_extracti64x4_epi64(nibbles, 1);
  return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(part));
}

static void unpack_panel(const uint8_t* panel, size_t k, uint8_t* to) {
  const __m512i low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  const __m512i mask = _mm512_set1_epi16(15);
  constexpr size_t kTileRow[4] = {0, 8, 1, 9};  // of nibble t: inputs 4j, 16 + 4j, 4j + 2, 16 + 4j + 2
  for (size_t b = 0; b < k / 32; b++, panel += 320, to += 1024) {
    const __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + 256)));
    const __m512 m = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + 288)));
    const __m512 d0 = _mm512_permutexvar_ps(low, d), d1 = _mm512_permutexvar_ps(high, d);
    const __m512 m0 = _mm512_permutexvar_ps(low, m), m1 = _mm512_permutexvar_ps(high, m);
    for (size_t j = 0; j < 4; j++) {
      const __m512i v = _mm512_loadu_si512(panel + 64 * j);
      const __m512i nibbles[4] = {_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi16(v, 4), mask),
                                  _mm512_and_si512(_mm512_srli_epi16(v, 8), mask), _mm512_srli_epi16(v, 12)};
      UNROLL for (size_t t = 0; t < 4; t++) {
        const __m512bh pair = _mm512_cvtne2ps_pbh(_mm512_fmadd_ps(d1, widen(nibbles[t], 1), m1), _mm512_fmadd_ps(d0, widen(nibbles[t], 0), m0));
        __builtin_memcpy(to + 64 * (2 * j + kTileRow[t]), &pair, 64);
      }
    }
  }
}

// Row of k floats to bfloat16.
static void round_row(const float* x, size_t k, uint16_t* to) {
  for (size_t i = 0; i < k; i += 32) {
    const __m512bh pair = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
    __builtin_memcpy(to + i, &pair, 64);
  }
}

// A tile of C to y: `rows` rows and all 16 outputs of it are wanted.
#define STORE_TILE(number, rows, y, ldy)                                                             \
  do {                                                                                               \
    if ((rows) >= 16) {                                                                              \
      _tile_stored(number, (y), (ldy) * 4);                                                          \
    } else {                                                                                         \
      alignas(64) float part[256];                                                                   \
      _tile_stored(number, part, 64);                                                                \
      for (size_t i = 0; i < (rows); i++) __builtin_memcpy((y) + (ldy) * i, part + 16 * i, 64);      \
    }                                                                                                \
  } while (0)

// Two panels (or one, where second is null) times up to 32 rows; x is readable up to the next multiple of 16 rows.
static void tile_rows(const uint8_t* first, const uint8_t* second, size_t k, const uint16_t* x, size_t rows, float* y, size_t ldy) {
  const bool wide = second != nullptr, tall = rows > 16;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t b = 0; b < k / 32; b++) {
    _tile_loadd(4, x + 32 * b, k * 2);
    _tile_loadd(6, first + 1024 * b, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (wide) {
      _tile_loadd(7, second + 1024 * b, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (tall) {
      _tile_loadd(5, x + 16 * k + 32 * b, k * 2);
      _tile_dpbf16ps(2, 5, 6);
      if (wide) _tile_dpbf16ps(3, 5, 7);
    }
  }
  STORE_TILE(0, rows, y, ldy);
  if (wide) STORE_TILE(1, rows, y + 16, ldy);
  if (tall) {
    STORE_TILE(2, rows - 16, y + 16 * ldy, ldy);
    if (wide) STORE_TILE(3, rows - 16, y + 16 * ldy + 16, ldy);
  }
}
#undef STORE_TILE

// Panels [0, count) of 4-bit weights; x: bfloat16 [rows rounded up to 16][k].
static void tile_panels(const uint8_t* panels, size_t count, size_t k, const uint16_t* x, size_t rows, float* y, size_t ldy) {
  alignas(64) thread_local std::vector<uint8_t> unpacked;
  const size_t one = k * 32, stride = k / 32 * 320;
  if (unpacked.size() < 2 * one + 64) unpacked.resize(2 * one + 64);
  uint8_t* to = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(unpacked.data()) + 63) / 64 * 64);
  open_tiles();
  for (size_t p = 0; p < count; p += 2) {
    const bool wide = p + 1 < count;
    unpack_panel(panels + stride * p, k, to);
    if (wide) unpack_panel(panels + stride * (p + 1), k, to + one);
    for (size_t r = 0; r < rows; r += 32) tile_rows(to, wide ? to + one : nullptr, k, x + k * r, rows - r < 32 ? rows - r : 32, y + ldy * r + 16 * p, ldy);
  }
  _tile_release();
}
