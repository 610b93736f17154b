// Opens `namespace avx2`: vectors of 8 floats. Closed by simd-end.h. No include guard, on purpose.
#include "isa.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
namespace avx2 {
#include "simd-256.h"

SIMD_FN Wide wide_step(Wide acc, B w, B x) {
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w, x));
  asm("" : "+x"(acc));  // else compilers regroup a chain of additions into a tree, which needs more registers than there are
  return acc;
}
