// Prints the instruction sets that a program may really use here, as JSON: CPUID says what the processor has, XGETBV what the operating system saves,
// arch_prctl whether this process is permitted AMX tiles. Names as in Linux's /proc/cpuinfo.
#include <cstdint>
#include <cstdio>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t savedState() {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0;  // OSXSAVE
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t(high) << 32) | low;
}

int main() {
  uint32_t a1 = 0, b1 = 0, c1 = 0, d1 = 0, a7 = 0, b7 = 0, c7 = 0, d7 = 0, a71 = 0, b71 = 0, c71 = 0, d71 = 0;
  __get_cpuid(1, &a1, &b1, &c1, &d1);
  __get_cpuid_count(7, 0, &a7, &b7, &c7, &d7);
  if (a7 >= 1) __get_cpuid_count(7, 1, &a71, &b71, &c71, &d71);
  const uint64_t saved = savedState();
  const bool ymm = (saved & 0x6) == 0x6;
  const bool zmm = ymm && (saved & 0xe0) == 0xe0;
  // ARCH_REQ_XCOMP_PERM (0x1023) for XTILEDATA (18): once per process, before its threads start.
  const bool tiles = (saved & 0x60000) == 0x60000 && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  const struct {
    const char* name;
    bool has;
  } bits[] = {
      {"avx", ymm && (c1 >> 28 & 1)},
      {"f16c", ymm && (c1 >> 29 & 1)},
      {"fma", ymm && (c1 >> 12 & 1)},
      {"avx2", ymm && (b7 >> 5 & 1)},
      {"bmi2", (b7 >> 8 & 1) != 0},
      {"avx_vnni", ymm && (a71 >> 4 & 1)},
      {"avx512f", zmm && (b7 >> 16 & 1)},
      {"avx512dq", zmm && (b7 >> 17 & 1)},
      {"avx512bw", zmm && (b7 >> 30 & 1)},
      {"avx512vl", zmm && (b7 >> 31 & 1)},
      {"avx512vbmi", zmm && (c7 >> 1 & 1)},
      {"avx512_vnni", zmm && (c7 >> 11 & 1)},
      {"avx512_bf16", zmm && (a71 >> 5 & 1)},
      {"avx512_fp16", zmm && (d7 >> 23 & 1)},
      {"amx_tile", tiles && (d7 >> 24 & 1)},
      {"amx_int8", tiles && (d7 >> 25 & 1)},
      {"amx_bf16", tiles && (d7 >> 22 & 1)},
  };
#elif defined(__aarch64__)
#include <sys/auxv.h>

int main() {
  const unsigned long one = getauxval(AT_HWCAP), two = getauxval(AT_HWCAP2);
  const struct {
    const char* name;
    bool has;
  } bits[] = {
      {"neon", (one >> 1 & 1) != 0},  {"fp16", (one >> 10 & 1) != 0}, {"dotprod", (one >> 20 & 1) != 0}, {"sve", (one >> 22 & 1) != 0},
      {"sve2", (two >> 1 & 1) != 0}, {"i8mm", (two >> 13 & 1) != 0}, {"bf16", (two >> 14 & 1) != 0},
  };
#else
int main() {
  const struct {
    const char* name;
    bool has;
  } bits[] = {{"none", false}};
#endif
  std::printf("[");
  const char* comma = "";
  for (const auto& bit : bits)
    if (bit.has) {
      std::printf("%s\"%s\"", comma, bit.name);
      comma = ",";
    }
  std::printf("]\n");
}
