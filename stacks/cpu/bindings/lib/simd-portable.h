// Opens `namespace portable`: vectors of 4 floats in the compilers' own vector extension, for any processor. On arm64 they become NEON.
// Closed by simd-end.h. No include guard, on purpose.
#include "isa.h"
#include <bit>
#include <cmath>
#include "half.h"
#define SIMD_PLAIN  // no target was opened: nothing for simd-end.h to close
namespace portable {
#define SIMD_FN static inline __attribute__((always_inline))
constexpr int W = 4;
constexpr size_t kTileRows = 4;

using F = float __attribute__((vector_size(16)));
using Words = int32_t __attribute__((vector_size(16)));
using Halves = int16_t __attribute__((vector_size(16)));
using B = Words;

template <class V>
SIMD_FN V load_as(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
SIMD_FN F load(const float* p) { return load_as<F>(p); }
SIMD_FN void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
SIMD_FN F set(float v) { return F{v, v, v, v}; }
SIMD_FN F fma(F a, F b, F c) { return a * b + c; }
SIMD_FN F max(F a, F b) { return a > b ? a : b; }
SIMD_FN F min(F a, F b) { return a < b ? a : b; }
SIMD_FN F abs(F a) { return std::bit_cast<F>(std::bit_cast<Words>(a) & 0x7fffffff); }
// Adding 1.5 * 2^23 leaves no bits for fractions; right for magnitudes below 2^22, and nothing here is larger.
SIMD_FN F round(F a) { return (a + set(12582912.0f)) - set(12582912.0f); }
SIMD_FN Words whole(F a) { return std::bit_cast<Words>(a + set(12582912.0f)) - std::bit_cast<Words>(set(12582912.0f)); }
SIMD_FN F swap_pairs(F a) { return F{a[1], a[0], a[3], a[2]}; }
SIMD_FN F pow2(F n) { return std::bit_cast<F>((whole(n) + 127) << 23); }
SIMD_FN float sum(F a) { return (a[0] + a[2]) + (a[1] + a[3]); }
SIMD_FN float highest(F a) { return std::fmax(std::fmax(a[0], a[2]), std::fmax(a[1], a[3])); }
SIMD_FN F load_half(const uint16_t* p) {
#if defined(__aarch64__)
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
  return F{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]), half_to_float(p[3])};
#endif
}

using Pairs = Words;
SIMD_FN Pairs load_pairs(const uint32_t* p) { return load_as<Words>(p); }
SIMD_FN F even(Pairs v) { return std::bit_cast<F>(v << 16); }
SIMD_FN F odd(Pairs v) { return std::bit_cast<F>(v & static_cast<int32_t>(0xffff0000)); }

SIMD_FN void store_i16(int16_t* p, F v) {
  const Words w = whole(v);
  for (int i = 0; i < 4; i++) p[i] = static_cast<int16_t>(w[i]);
}

SIMD_FN void store_bytes(uint8_t* p, B v) { __builtin_memcpy(p, &v, sizeof v); }
SIMD_FN B load_bytes(const uint8_t* p) { return load_as<B>(p); }

// A Wide word is the sum of both products of its 16-bit halves.
using Wide = Words;
SIMD_FN Wide wide_zero() { return Words{0, 0, 0, 0}; }
SIMD_FN B wide_weights(const uint8_t* p) {
  const auto q = reinterpret_cast<const int8_t*>(p);
  return std::bit_cast<B>(Halves{q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7]});
}
SIMD_FN B wide_pair(const int16_t* p) {
  const int32_t v = load_as<int32_t>(p);
  return Words{v, v, v, v};
}
SIMD_FN B wide_nibbles(B v, int which) { return v >> (4 * which) & 0x000f000f; }
SIMD_FN Wide wide_step(Wide acc, B w, B x) {
#if defined(__aarch64__)
  const int16x8_t a = std::bit_cast<int16x8_t>(w), b = std::bit_cast<int16x8_t>(x);
  return acc + std::bit_cast<Words>(vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)));
#else
  return acc + (w << 16 >> 16) * (x << 16 >> 16) + (w >> 16) * (x >> 16);
#endif
}
SIMD_FN F wide_float(Wide acc) { return __builtin_convertvector(acc, F); }
