// flags:
// Seam `linear`: as q4-int8, and from twelve rows on matrix tiles (AMX) of bfloat16, where the processor and the system offer them: a panel of
// 4-bit weights is unpacked once for all rows. Fewer rows would not repay the unpacking. 8-bit weights (the output matrix) keep 16-bit integers.
#include "block-families.h"
#include "packed-weights.h"
#if defined(__x86_64__) && defined(__linux__)
#define HAS_TILES
#ifndef SIMD_EMULATE
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(SIMD_EMULATE)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16,f16c")
#endif
namespace tiles {
#include "tile-kernels.h"
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {
constexpr size_t kTileFrom = 12;  // rows

#ifdef HAS_TILES
// Asks the kernel for the tile registers: once per process, for all its threads.
bool tiles_allowed() {
#ifdef SIMD_EMULATE
  return true;
#else
  static const bool allowed = [] {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return isa() == Isa::avx512 && cpu_bits().amx_bf16 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return allowed;
#endif
}
#else
bool tiles_allowed() { return false; }
#endif

struct Forms {
  bool tiled, quantised;
};
// Which forms of `rows` rows of activations this weight reads.
Forms forms_of(const Weight& w, size_t rows) {
  const bool tiled = rows >= kTileFrom && tiles_allowed();
  Forms f{false, false};
  for (const Segment& s : w.segments) (tiled && s.kind == Kind::q4 ? f.tiled : f.quantised) = true;
  return f;
}
size_t rounded(size_t rows) { return (rows + 15) / 16 * 16; }
uint16_t* bf16_of(const Weight& w, void* scratch, size_t rows) {
  return reinterpret_cast<uint16_t*>(static_cast<uint8_t*>(scratch) + (quantised_bytes(w, rows) + 63) / 64 * 64);
}
}  // namespace

Weight* linear_pack(std::span<const Tensor* const> tensors) {
  tiles_allowed();  // before any thread works
  return pack(tensors, kernels());
}
size_t linear_scratch(const Weight& w, int rows) {
  const size_t n = static_cast<size_t>(rows);
  return (quantised_bytes(w, n) + 63) / 64 * 64 + rounded(n) * w.inputs * sizeof(uint16_t);
}

void linear_prepare(const Weight& w, const float* x, int rows, void* scratch, int part, int parts) {
  const size_t n = static_cast<size_t>(rows);
  const Forms forms = forms_of(w, n);
  if (forms.quantised) quantise(kernels(), w, x, n, scratch, part, parts);
#ifdef HAS_TILES
  if (forms.tiled) {
    uint16_t* to = bf16_of(w, scratch, n);
    const size_t of = static_cast<size_t>(parts);
    for (size_t r = n * static_cast<size_t>(part) / of; r < n * static_cast<size_t>(part + 1) / of; r++) tiles::round_row(x + w.inputs * r, w.inputs, to + w.inputs * r);
  }
#endif
}

void linear_compute(const Weight& w, const float*, const void* scratch, int rows, float* y, int part, int parts) {
  const size_t n = static_cast<size_t>(rows);
  const bool tiled = forms_of(w, n).tiled;
  const Quantised x = lay_out(w, const_cast<void*>(scratch), n);
  each_run(w, n, y, part, parts, [&](const Segment& s, size_t panel, size_t count, float* to, size_t ldy) {
#ifdef HAS_TILES
    if (tiled && s.kind == Kind::q4) {
      const uint16_t* in = bf16_of(w, const_cast<void*>(scratch), n);
      return tiles::tile_panels(s.data.get() + w.inputs * 10 * panel, count, w.inputs, in, n, to, ldy);
    }
#else
    (void)tiled;
#endif
    multiply(kernels(), w, s, panel, count, x, n, to, ldy);
  });
}
