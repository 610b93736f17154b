// flags:
// Seam `linear`: as q4-int8, in 256-bit vectors on a processor that has 512-bit ones: some lower their clock for those, for all that runs on
// the core. Starts only where AVX-512VL and VNNI are.
#include "../lib/isa.h"
#include "../lib/pages.h"
#include "block-types.h"
#if !defined(__x86_64__)
#error "q4-int8-256 is for x86-64"
#endif
#include "../lib/simd-avx512vl.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"

namespace {
const Kernels& kernels() {
#ifndef SIMD_EMULATE
  static const bool able = cpu_bits().avx512;
  if (!able) throw std::runtime_error("linear/q4-int8-256: needs AVX-512 with VL and VNNI, which this processor has not");
#endif
  return avx512vl::kKernels;
}
}  // namespace

#include "packed-linear.h"
