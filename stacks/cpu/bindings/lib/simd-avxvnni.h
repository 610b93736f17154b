// Opens `namespace avxvnni`: as avx2, with vpdpwssd, which multiplies and adds in one. Closed by simd-end.h. No include guard, on purpose.
#include "isa.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif
namespace avxvnni {
#include "simd-256.h"

SIMD_FN Wide wide_step(Wide acc, B w, B x) { return _mm256_dpwssd_avx_epi32(acc, w, x); }
