// The inner loop of every matrix product: a tile of R rows by `width` columns of double sums.
//
//   acc[r][c] += sum over k of x[k][r] * w[k][c]        x packed [depth][R], w packed [depth][width], acc [R][width]
//
// The operands hold float32 values, so each product is exact in double, and each sum runs over k in ascending order. A fused
// multiply-add therefore rounds exactly as a multiplication and an addition do: every variant gives the same bits.
#pragma once
#include <cstddef>
#include <string>

#include "cpu.hpp"

namespace ref {

constexpr size_t R = 4;          // rows of a tile
constexpr size_t MAX_WIDTH = 24;  // of any variant

struct Kernel {
  size_t width;
  void (*tile)(size_t depth, const double* x, const double* w, double* acc);
  const char* name;
};

// A tile is three vectors of LANES doubles wide: 12 sums, enough to hide the latency of the multiply-add. They are twelve variables,
// since GCC keeps an array of them in memory; a macro, because a template is lowered to the default instruction set before it is
// inlined into a function with another target.
#define REF_AT(p) (*reinterpret_cast<const Vec*>(p))
#define REF_LOAD(r) Vec a##r = REF_AT(acc + r * W), b##r = REF_AT(acc + r * W + L), c##r = REF_AT(acc + r * W + 2 * L);
#define REF_ADD(r) a##r += x[r] * w0, b##r += x[r] * w1, c##r += x[r] * w2;
#define REF_PUT(p, v) *reinterpret_cast<Vec*>(p) = v;
#define REF_STORE(r) REF_PUT(acc + r * W, a##r) REF_PUT(acc + r * W + L, b##r) REF_PUT(acc + r * W + 2 * L, c##r)
#define REF_KERNEL(NAME, ATTRIBUTE, LANES)                                                       \
  ATTRIBUTE inline void NAME(size_t depth, const double* x, const double* w, double* acc) {      \
    typedef double Vec __attribute__((vector_size(LANES * 8), aligned(8), may_alias));           \
    constexpr size_t L = LANES, W = 3 * LANES;                                                   \
    REF_LOAD(0) REF_LOAD(1) REF_LOAD(2) REF_LOAD(3)                                              \
    for (size_t k = 0; k < depth; k++, x += R, w += W) {                                         \
      const Vec w0 = REF_AT(w), w1 = REF_AT(w + L), w2 = REF_AT(w + 2 * L);                      \
      REF_ADD(0) REF_ADD(1) REF_ADD(2) REF_ADD(3)                                                \
    }                                                                                            \
    REF_STORE(0) REF_STORE(1) REF_STORE(2) REF_STORE(3)                                          \
  }

REF_KERNEL(tileDefault, , 2)
#if defined(__x86_64__)
REF_KERNEL(tileAvx2, __attribute__((target("avx2,fma"))), 4)
REF_KERNEL(tileAvx512, __attribute__((target("avx512f"))), 8)
#endif
#undef REF_AT
#undef REF_LOAD
#undef REF_ADD
#undef REF_PUT
#undef REF_STORE
#undef REF_KERNEL

// The widest variant that this CPU runs, or the one asked for ("default", "avx2", "avx512").
inline Kernel chooseKernel(const std::string& wanted) {
#if defined(__x86_64__)
  const CpuFeatures cpu = cpuFeatures();
  if (cpu.avx512 && (wanted.empty() || wanted == "avx512")) return {24, tileAvx512, "avx512"};
  if (cpu.avx2 && (wanted.empty() || wanted == "avx2")) return {12, tileAvx2, "avx2"};
#endif
  if (!wanted.empty() && wanted != "default") return {0, nullptr, "absent"};
  return {6, tileDefault, "default"};
}

}  // namespace ref
