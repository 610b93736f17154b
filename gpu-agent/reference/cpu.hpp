// Which vector instructions CPU and operating system allow, by CPUID and XGETBV. Compilers' own __builtin_cpu_supports is not used:
// under `zig c++` it answers no to everything.
#pragma once
#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#endif

namespace ref {

struct CpuFeatures {
  bool avx2 = false, avx512 = false;
};

inline CpuFeatures cpuFeatures() {
  CpuFeatures f;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return f;
  const bool fma = (c >> 12 & 1) != 0, osxsave = (c >> 27 & 1) != 0;
  if (!osxsave || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return f;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  f.avx2 = fma && (b >> 5 & 1) != 0 && (low & 0x06) == 0x06;
  f.avx512 = (b >> 16 & 1) != 0 && (low & 0xe6) == 0xe6;
#endif
  return f;
}

}  // namespace ref
