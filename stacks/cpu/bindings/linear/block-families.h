// block-kernels.h compiled for every vector family, and the choice among them.
#pragma once
#include "../lib/isa.h"
#include "../lib/pages.h"
#include "block-types.h"

#if BUILD_AVX2
#include "../lib/simd-avx2.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_AVXVNNI
#include "../lib/simd-avxvnni.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_AVX512
#include "../lib/simd-avx512.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_PORTABLE
#include "../lib/simd-portable.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"
#endif

namespace {
const Kernels& kernels() {
#if BUILD_AVXVNNI
  if (isa() == Isa::avxvnni) return avxvnni::kKernels;
#endif
  return SIMD_PICK(kKernels);
}
}  // namespace
