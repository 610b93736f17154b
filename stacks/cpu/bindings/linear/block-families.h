// block-kernels.h compiled for every vector family, and the choice among them.
#pragma once
#include "../lib/isa.h"
#include "../lib/pages.h"
#include "block-types.h"

#if defined(__x86_64__)
#include "../lib/simd-avx2.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"
#include "../lib/simd-avxvnni.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"
#include "../lib/simd-avx512.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"
#endif
#include "../lib/simd-portable.h"
#include "block-kernels.h"
#include "../lib/simd-end.h"

namespace {
const Kernels& kernels() {
#if defined(__x86_64__)
  if (isa() == Isa::avxvnni) return avxvnni::kKernels;
#endif
  return SIMD_PICK(kKernels);
}
}  // namespace
