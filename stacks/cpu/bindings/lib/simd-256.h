// What avx2 and avxvnni have in common. Included inside their namespaces. The same names exist in every family: a kernel is written once.
#define SIMD_FN static inline __attribute__((always_inline))
constexpr int W = 8;  // lanes of F
constexpr size_t kTileRows = 4;  // rows of a matrix tile that sixteen registers hold

using F = __m256;   // W floats; + - * / are the compiler's own
using B = __m256i;  // 4 * W bytes: four neighbouring values for each of W outputs

SIMD_FN F load(const float* p) { return _mm256_loadu_ps(p); }
SIMD_FN void store(float* p, F v) { _mm256_storeu_ps(p, v); }
SIMD_FN F set(float v) { return _mm256_set1_ps(v); }
SIMD_FN F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
SIMD_FN F max(F a, F b) { return _mm256_max_ps(a, b); }
SIMD_FN F min(F a, F b) { return _mm256_min_ps(a, b); }
SIMD_FN F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
SIMD_FN F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SIMD_FN F swap_pairs(F a) { return _mm256_permute_ps(a, 0xb1); }  // (a1, a0, a3, a2, …)
SIMD_FN F pow2(F whole) {                                          // 2^whole for whole numbers in -126…127
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23));
}
SIMD_FN float sum(F a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
SIMD_FN float highest(F a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
SIMD_FN F load_half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

// bfloat16 in pairs: lane i of `even` is the low half of 32-bit word i, of `odd` the high half.
using Pairs = __m256i;
SIMD_FN Pairs load_pairs(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
SIMD_FN F even(Pairs v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
SIMD_FN F odd(Pairs v) { return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(static_cast<int>(0xffff0000)))); }

// Rounds W floats to the nearest whole numbers and stores them; they must fit.
SIMD_FN void store_i16(int16_t* p, F v) {
  const __m256i i = _mm256_cvtps_epi32(v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1)));
}

SIMD_FN void store_bytes(uint8_t* p, B v) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), v); }
SIMD_FN B load_bytes(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }

// Products of small whole weights with 16-bit activations, two at a time for each output, summed in 32 bits.
using Wide = __m256i;
SIMD_FN Wide wide_zero() { return _mm256_setzero_si256(); }
SIMD_FN B wide_weights(const uint8_t* p) { return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(p))); }
SIMD_FN B wide_pair(const int16_t* p) {
  int v;
  __builtin_memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
// Nibble number `which` (from the low end) of every 16-bit half.
SIMD_FN B wide_nibbles(B v, int which) {
  if (which == 3) return _mm256_srli_epi16(v, 12);
  return _mm256_and_si256(which == 0 ? v : _mm256_srli_epi16(v, 4 * which), _mm256_set1_epi16(15));
}
SIMD_FN F wide_float(Wide acc) { return _mm256_cvtepi32_ps(acc); }
