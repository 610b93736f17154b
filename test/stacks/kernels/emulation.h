// AVX-512 intrinsics from SIMDe, and the few of AMX and BF16 that it lacks, so that those kernels' own code runs on any x86-64 machine.
// Compile with -DSIMD_EMULATE='"…/emulation.h"'.
#pragma once
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <cmath>
#include <cstdint>
#include <cstring>
#include "../../../stacks/cpu/bindings/lib/half.h"

#ifndef _MM_FROUND_NO_EXC
#define _MM_FROUND_NO_EXC SIMDE_MM_FROUND_NO_EXC
#endif
#ifndef _MM_FROUND_TO_NEAREST_INT
#define _MM_FROUND_TO_NEAREST_INT SIMDE_MM_FROUND_TO_NEAREST_INT
#endif
#define _mm256_dpwssd_avx_epi32 simde_mm256_dpwssd_epi32

using emulated_bf16 = uint16_t __attribute__((vector_size(64)));
#undef __m512bh
#define __m512bh emulated_bf16

inline simde__m512 emulated_cvtph(simde__m256i v) {
  uint16_t h[16];
  float f[16];
  std::memcpy(h, &v, 32);
  for (int i = 0; i < 16; i++) f[i] = half_to_float(h[i]);
  return simde_mm512_loadu_ps(f);
}
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps emulated_cvtph

template <class From, class To, int N = 16>
struct EmulatedLanes {
  From from[N];
  To to[N];
};
inline simde__m512i emulated_cvtps_epi32(simde__m512 v) {
  EmulatedLanes<float, int32_t> l;
  std::memcpy(l.from, &v, 64);
  for (int i = 0; i < 16; i++) l.to[i] = static_cast<int32_t>(std::lrint(l.from[i]));
  return simde_mm512_loadu_si512(l.to);
}
inline simde__m512 emulated_cvtepi32_ps(simde__m512i v) {
  EmulatedLanes<int32_t, float> l;
  std::memcpy(l.from, &v, 64);
  for (int i = 0; i < 16; i++) l.to[i] = static_cast<float>(l.from[i]);
  return simde_mm512_loadu_ps(l.to);
}
inline simde__m512i emulated_cvtepu16_epi32(simde__m256i v) {
  EmulatedLanes<uint16_t, int32_t> l;
  std::memcpy(l.from, &v, 32);
  for (int i = 0; i < 16; i++) l.to[i] = l.from[i];
  return simde_mm512_loadu_si512(l.to);
}
inline simde__m512i emulated_shuffle_epi32(simde__m512i v, int order) {
  EmulatedLanes<int32_t, int32_t> l;
  std::memcpy(l.from, &v, 64);
  for (int i = 0; i < 16; i++) l.to[i] = l.from[i / 4 * 4 + (order >> (i % 4 * 2) & 3)];
  return simde_mm512_loadu_si512(l.to);
}
inline float emulated_reduce(simde__m512 v, bool highest) {
  float f[16];
  std::memcpy(f, &v, 64);
  for (int step = 8; step != 0; step /= 2)
    for (int i = 0; i < step; i++) f[i] = highest ? std::fmax(f[i], f[i + step]) : f[i] + f[i + step];
  return f[0];
}
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#undef _mm512_shuffle_epi32
#define _mm512_shuffle_epi32 emulated_shuffle_epi32
#define _mm512_reduce_add_ps(v) emulated_reduce(v, false)
#define _mm512_reduce_max_ps(v) emulated_reduce(v, true)
#define _MM_PERM_ENUM int

inline emulated_bf16 emulated_cvtne2ps(simde__m512 high, simde__m512 low) {
  float f[32];
  uint16_t h[32];
  std::memcpy(f, &low, 64);
  std::memcpy(f + 16, &high, 64);
  for (int i = 0; i < 32; i++) h[i] = float_to_bf16(f[i]);
  emulated_bf16 v;
  std::memcpy(&v, h, 64);
  return v;
}
#undef _mm512_cvtne2ps_pbh
#define _mm512_cvtne2ps_pbh emulated_cvtne2ps

struct EmulatedTile {
  uint8_t bytes[16][64];
};
inline EmulatedTile& emulated_tile(int n) {
  thread_local EmulatedTile t[8];
  return t[n];
}
inline void emulated_load(int n, const void* from, size_t stride) {
  for (size_t r = 0; r < 16; r++) std::memcpy(emulated_tile(n).bytes[r], static_cast<const uint8_t*>(from) + stride * r, 64);
}
inline void emulated_store(int n, void* to, size_t stride) {
  for (size_t r = 0; r < 16; r++) std::memcpy(static_cast<uint8_t*>(to) + stride * r, emulated_tile(n).bytes[r], 64);
}
inline void emulated_dpbf16(int c, int a, int b) {
  for (int row = 0; row < 16; row++) {
    float sums[16];
    uint16_t left[32];
    std::memcpy(sums, emulated_tile(c).bytes[row], 64);
    std::memcpy(left, emulated_tile(a).bytes[row], 64);
    for (int i = 0; i < 16; i++) {
      uint16_t right[32];
      std::memcpy(right, emulated_tile(b).bytes[i], 64);
      for (int n = 0; n < 16; n++) {
        sums[n] += bf16_to_float(left[2 * i]) * bf16_to_float(right[2 * n]);
        sums[n] += bf16_to_float(left[2 * i + 1]) * bf16_to_float(right[2 * n + 1]);
      }
    }
    std::memcpy(emulated_tile(c).bytes[row], sums, 64);
  }
}
#define _tile_loadconfig(p) ((void)(p))
#define _tile_release() ((void)0)
#define _tile_zero(n) std::memset(emulated_tile(n).bytes, 0, 1024)
#define _tile_loadd(n, p, s) emulated_load(n, p, s)
#define _tile_stored(n, p, s) emulated_store(n, p, s)
#define _tile_dpbf16ps(c, a, b) emulated_dpbf16(c, a, b)
