// Opens `namespace avxvnni`: as avx2, with vpdpbusd for the products of bytes. Closed by simd-end.h. No include guard, on purpose.
#include "isa.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif

namespace avxvnni {
#include "simd-256.h"

// Sums of products of unsigned bytes and signed bytes, in 32 bits.
using Dot = __m256i;
SIMD_FN Dot dot_first(B w, B x) { return _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), w, x); }
SIMD_FN Dot dot_step(Dot acc, B w, B x) { return _mm256_dpbusd_avx_epi32(acc, w, x); }
SIMD_FN F dot_float(Dot acc) { return _mm256_cvtepi32_ps(acc); }
