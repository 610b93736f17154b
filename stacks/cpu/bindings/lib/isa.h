// Which instruction sets this processor and its operating system really offer, read from CPUID (never from a model name).
#pragma once
#if defined(__x86_64__)
#include <cpuid.h>
#ifdef SIMD_EMULATE  // tests: AVX-512 intrinsics in software, so that their paths run on any machine
#include SIMD_EMULATE
#else
#if !defined(__clang__)  // gcc 12 takes its own _mm512_undefined_ps() for a mistake
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include "target.h"

#if !defined(__x86_64__)  // whatever the target names, there is one family
#undef BUILD_PORTABLE
#undef BUILD_AVX2
#undef BUILD_AVXVNNI
#undef BUILD_AVX512
#define BUILD_PORTABLE 1
#define BUILD_AVX2 0
#define BUILD_AVXVNNI 0
#define BUILD_AVX512 0
#endif

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

// In rising order of speed. Each vector family has a header simd-<name>.h that opens `namespace <name>` and compiles what follows for it.
enum class Isa { portable, avx2, avxvnni, avx512 };

struct CpuBits {
  bool avx2 = false, avxvnni = false, avx512 = false, amx_bf16 = false;
};

inline CpuBits cpu_bits() {
  CpuBits c;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, cx = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &cx, &d)) return c;
  const bool osxsave = cx >> 27 & 1, fma = cx >> 12 & 1, f16c = cx >> 29 & 1;
  if (!osxsave) return c;
  uint32_t lo = 0, hi = 0;
  asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));  // which registers the operating system saves
  const bool ymm = (lo & 0x6) == 0x6, zmm = (lo & 0xe6) == 0xe6, tiles = (lo & 0x60000) == 0x60000;
  if (!__get_cpuid_count(7, 0, &a, &b, &cx, &d)) return c;
  const unsigned leaves = a;
  c.avx2 = ymm && fma && f16c && (b >> 5 & 1);
  const bool f = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, vnni = cx >> 11 & 1;
  c.avx512 = c.avx2 && zmm && f && dq && bw && vl && vnni;
  c.amx_bf16 = c.avx512 && tiles && (d >> 24 & 1) && (d >> 22 & 1);
  if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &cx, &d)) c.avxvnni = c.avx2 && (a >> 4 & 1);
#endif
  return c;
}

// The family in use: the best one that is compiled and that the processor has. Throws where there is none. Tests lower it before anything is
// loaded; the product never does.
inline Isa& isa() {
  static Isa chosen = [] {
    const CpuBits c = cpu_bits();
    if (BUILD_AVX512 && c.avx512) return Isa::avx512;
    if (BUILD_AVXVNNI && c.avxvnni) return Isa::avxvnni;
    if (BUILD_AVX2 && c.avx2) return Isa::avx2;
    if (BUILD_PORTABLE) return Isa::portable;
    throw std::runtime_error(std::string("this stack was composed for ") + (BUILD_AVX512 ? "AVX-512 with VNNI" : "AVX2") +
                             ", which this processor has not");
  }();
  return chosen;
}

// The table of that name in the family in use, of those that every file compiles (avxvnni differs from avx2 in products of whole numbers only).
#if BUILD_AVX512 && BUILD_AVX2 && BUILD_PORTABLE
#define SIMD_PICK(table) (isa() >= Isa::avx512 ? avx512::table : isa() >= Isa::avx2 ? avx2::table : portable::table)
#elif BUILD_AVX512
#define SIMD_PICK(table) (isa(), avx512::table)
#elif BUILD_AVX2
#define SIMD_PICK(table) (isa(), avx2::table)
#else
#define SIMD_PICK(table) (isa(), portable::table)
#endif
