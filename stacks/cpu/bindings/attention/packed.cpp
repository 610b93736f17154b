// flags:
// Seam `attention`: keys and values in bfloat16, laid out as the kernels read them; queries that share a KV head are answered together, and
// the work is cut by cost (positions read), not by rows, so that threads finish together whatever the lengths are.
// Of one layer and KV head: keys [positions / 16][dim / 2][16 positions][2], values [positions / 2][dim][2 positions]. These are also the
// layouts that matrix tiles of bfloat16 read.
#include "../../seams/attention.h"
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>
#include "../lib/half.h"
#include "../lib/isa.h"

namespace {
constexpr size_t kMaxDim = 256;
constexpr size_t kTile = 6;   // queries answered together: with two vectors of positions, what sixteen registers hold

struct Kernels {
  void (*tile[kTile])(const uint32_t* keys, const uint32_t* values, size_t dim, const size_t* counts, size_t padded, const float* q, float* s, float* out);
};
}  // namespace

#if BUILD_AVX2
#include "../lib/simd-avx2.h"
#include "../lib/float-math.h"
#include "packed-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_AVX512
#include "../lib/simd-avx512.h"
#include "../lib/float-math.h"
#include "packed-kernels.h"
#include "../lib/simd-end.h"
#endif
#if BUILD_PORTABLE
#include "../lib/simd-portable.h"
#include "../lib/float-math.h"
#include "packed-kernels.h"
#include "../lib/simd-end.h"
#endif

namespace {
const Kernels& kernels() { return SIMD_PICK(kKernels); }
}  // namespace

struct KvCache {
  size_t head;  // 32-bit words of the keys, or of the values, of one layer and KV head
  uint32_t* words;
};

KvCache* kv_new(const Config& c, int capacity) {
  if (c.head_dim % 16 != 0 || c.head_dim > static_cast<int>(kMaxDim)) {
    throw std::runtime_error("attention/packed: needs head_dim in multiples of 16 up to " + std::to_string(kMaxDim) + ", got " + std::to_string(c.head_dim));
  }
  const size_t positions = (static_cast<size_t>(capacity) + 31) / 32 * 32, head = positions * static_cast<size_t>(c.head_dim) / 2;
  // Cleared: the kernels multiply values of positions that are not written yet with zero, so they must be finite. Pages cost memory once used.
  void* words = std::calloc(head * static_cast<size_t>(c.kv_heads) * static_cast<size_t>(c.layers) * 2 + 16, sizeof(uint32_t));
  if (words == nullptr) throw std::bad_alloc();
  return new KvCache{head, static_cast<uint32_t*>(words)};
}

void kv_free(KvCache* kv) {
  std::free(kv->words);
  delete kv;
}

namespace {
uint32_t* keys_of(const KvCache& kv, const Config& c, size_t layer, size_t h) {
  return kv.words + kv.head * 2 * (layer * static_cast<size_t>(c.kv_heads) + h);
}
uint32_t* values_of(const KvCache& kv, const Config& c, size_t layer, size_t h) { return keys_of(kv, c, layer, h) + kv.head; }
}  // namespace

void kv_store(const Config& c, int layer, const Row* rows, int n, const float* k, const float* v, int stride, int part, int parts) {
  const size_t dim = static_cast<size_t>(c.head_dim);
  for (int r = n * part / parts; r < n * (part + 1) / parts; r++) {
    const size_t pos = static_cast<size_t>(rows[r].pos);
    for (size_t h = 0; h < static_cast<size_t>(c.kv_heads); h++) {
      const float* key = k + static_cast<size_t>(r) * static_cast<size_t>(stride) + h * dim;
      const float* value = v + static_cast<size_t>(r) * static_cast<size_t>(stride) + h * dim;
      uint32_t* to = keys_of(*rows[r].kv, c, static_cast<size_t>(layer), h) + pos / 16 * dim * 8 + pos % 16;
      for (size_t d = 0; d < dim / 2; d++) to[16 * d] = float_to_bf16(key[2 * d]) | static_cast<uint32_t>(float_to_bf16(key[2 * d + 1])) << 16;
      uint16_t* half = reinterpret_cast<uint16_t*>(values_of(*rows[r].kv, c, static_cast<size_t>(layer), h) + pos / 2 * dim) + pos % 2;
      for (size_t d = 0; d < dim; d++) half[2 * d] = float_to_bf16(value[d]);
    }
  }
}

namespace {
// Queries of one sequence and KV head, gathered until a tile is full.
struct Gathered {
  const KvCache* kv = nullptr;
  size_t head = 0, n = 0, counts[kTile];
  float* out[kTile];
  alignas(64) float q[kTile * kMaxDim];
};

void answer(const Config& c, int layer, Gathered& g, std::vector<float>& s) {
  if (g.n == 0) return;
  const size_t dim = static_cast<size_t>(c.head_dim);
  size_t longest = 0;
  for (size_t i = 0; i < g.n; i++) longest = std::max(longest, g.counts[i]);
  const size_t padded = (longest + 31) / 32 * 32;
  if (s.size() < padded * kTile) s.resize(padded * kTile * 2);
  alignas(64) float out[kTile * kMaxDim];
  const size_t l = static_cast<size_t>(layer);
  kernels().tile[g.n - 1](keys_of(*g.kv, c, l, g.head), values_of(*g.kv, c, l, g.head), dim, g.counts, padded, g.q, s.data(), out);
  for (size_t i = 0; i < g.n; i++) std::memcpy(g.out[i], out + dim * i, dim * sizeof(float));
  g.n = 0;
}
}  // namespace

void attend(const Config& c, int layer, const Row* rows, int n, const float* q, int stride, float* out, int part, int parts) {
  thread_local std::vector<float> s;
  const size_t dim = static_cast<size_t>(c.head_dim), heads = static_cast<size_t>(c.heads), group = heads / static_cast<size_t>(c.kv_heads);
  const float scale = 1 / std::sqrt(static_cast<float>(dim));
  constexpr size_t kFixed = 16;  // what a query costs besides its positions, in positions
  size_t total = 0, cost = 0;
  for (int r = 0; r < n; r++) total += (static_cast<size_t>(rows[r].pos) + kFixed) * heads;
  const size_t from = total * static_cast<size_t>(part) / static_cast<size_t>(parts), to = total * static_cast<size_t>(part + 1) / static_cast<size_t>(parts);
  Gathered g;
  for (int first = 0, last = 0; first < n && cost < to; first = last) {
    size_t one_head = 0;
    for (last = first; last < n && rows[last].kv == rows[first].kv; last++) one_head += static_cast<size_t>(rows[last].pos) + kFixed;
    for (size_t h = 0; h < heads / group && cost < to; h++) {
      if (cost + one_head * group <= from) {
        cost += one_head * group;
        continue;
      }
      answer(c, layer, g, s);
      g.kv = rows[first].kv, g.head = h;
      for (int r = first; r < last && cost < to; r++) {
        for (size_t i = 0; i < group; i++, cost += static_cast<size_t>(rows[r].pos) + kFixed) {
          if (cost < from || cost >= to) continue;
          const size_t at = (h * group + i) * dim;
          const float* query = q + static_cast<size_t>(r) * static_cast<size_t>(stride) + at;
          for (size_t d = 0; d < dim; d++) g.q[g.n * dim + d] = query[d] * scale;
          g.counts[g.n] = static_cast<size_t>(rows[r].pos) + 1;
          g.out[g.n] = out + static_cast<size_t>(r) * heads * dim + at;
          if (++g.n == kTile) answer(c, layer, g, s);
        }
      }
    }
  }
  answer(c, layer, g, s);
}
