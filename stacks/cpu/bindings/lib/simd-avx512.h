// Opens `namespace avx512`: vectors of 16 floats, AVX-512 with VNNI. Closed by simd-end.h. No include guard, on purpose.
#include "isa.h"
#if defined(SIMD_EMULATE)  // what the emulation itself may use
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
namespace avx512 {
#define SIMD_FN static inline __attribute__((always_inline))
constexpr int W = 16;             // lanes of F
constexpr size_t kTileRows = 6;   // rows of a matrix tile that thirty-two registers hold

using F = __m512;
using B = __m512i;

SIMD_FN F load(const float* p) { return _mm512_loadu_ps(p); }
SIMD_FN void store(float* p, F v) { _mm512_storeu_ps(p, v); }
SIMD_FN F set(float v) { return _mm512_set1_ps(v); }
SIMD_FN F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
SIMD_FN F max(F a, F b) { return _mm512_max_ps(a, b); }
SIMD_FN F min(F a, F b) { return _mm512_min_ps(a, b); }
SIMD_FN F abs(F a) { return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff))); }
SIMD_FN F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SIMD_FN F swap_pairs(F a) { return _mm512_castsi512_ps(_mm512_shuffle_epi32(_mm512_castps_si512(a), static_cast<_MM_PERM_ENUM>(0xb1))); }
SIMD_FN F pow2(F whole) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(whole), _mm512_set1_epi32(127)), 23));
}
SIMD_FN float sum(F a) { return _mm512_reduce_add_ps(a); }
SIMD_FN float highest(F a) { return _mm512_reduce_max_ps(a); }
SIMD_FN F load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }

using Pairs = __m512i;
SIMD_FN Pairs load_pairs(const uint32_t* p) { return _mm512_loadu_si512(p); }
SIMD_FN F even(Pairs v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
SIMD_FN F odd(Pairs v) { return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000)))); }

SIMD_FN void store_i16(int16_t* p, F v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
}

SIMD_FN void store_bytes(uint8_t* p, B v) { _mm512_storeu_si512(p, v); }
SIMD_FN B load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }

using Wide = __m512i;
SIMD_FN Wide wide_zero() { return _mm512_setzero_si512(); }
SIMD_FN B wide_weights(const uint8_t* p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
SIMD_FN B wide_pair(const int16_t* p) {
  int v;
  __builtin_memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}
SIMD_FN B wide_nibbles(B v, int which) {
  if (which == 3) return _mm512_srli_epi16(v, 12);
  return _mm512_and_si512(which == 0 ? v : _mm512_srli_epi16(v, static_cast<unsigned>(4 * which)), _mm512_set1_epi16(15));
}
SIMD_FN Wide wide_step(Wide acc, B w, B x) { return _mm512_dpwssd_epi32(acc, w, x); }
SIMD_FN F wide_float(Wide acc) { return _mm512_cvtepi32_ps(acc); }
