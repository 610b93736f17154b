// Opens `namespace avx512vl`: as avx2, with AVX-512's own vpdpwssd on 256-bit vectors. Closed by simd-end.h. No include guard, on purpose.
#include "isa.h"
#if defined(SIMD_EMULATE)  // what the emulation itself may use
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512vl,avx512vnni")
#endif
namespace avx512vl {
#include "simd-256.h"

SIMD_FN Wide wide_step(Wide acc, B w, B x) { return _mm256_dpwssd_epi32(acc, w, x); }
