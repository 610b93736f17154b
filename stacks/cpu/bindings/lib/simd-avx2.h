// Opens `namespace avx2`: vectors of 8 floats, bytes multiplied by vpmaddubsw. Closed by simd-end.h. No include guard, on purpose.
#include "isa.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace avx2 {
#include "simd-256.h"

// Sums of products of unsigned bytes (4 bits: 0…15) and signed bytes (-127…127), in 16 bits: one step adds at most 2 * 15 * 127 = 3,810,
// so the eight steps of a block of 32 reach 30,480 and cannot overflow.
using Dot = __m256i;
SIMD_FN Dot dot_first(B w, B x) { return _mm256_maddubs_epi16(w, x); }
SIMD_FN Dot dot_step(Dot acc, B w, B x) {
  acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x));
  asm("" : "+x"(acc));  // else compilers regroup a chain of additions into a tree, which needs more registers than there are
  return acc;
}
SIMD_FN F dot_float(Dot acc) { return _mm256_cvtepi32_ps(_mm256_madd_epi16(acc, _mm256_set1_epi16(1))); }
