// flags:
// Seam `head`: rows that are greedy and want nothing else get their argmax tile by tile, on every thread, while the tile's logits are still in
// cache; the scheduler's thread never walks over a vocabulary. Rows that sample or want log-probabilities take the sampler's full path.
#include "../../seams/head.h"
#include <algorithm>
#include <cstring>
#include <limits>
#include "../../core/sample.h"
#include "../../seams/linear.h"

namespace {
constexpr int kRows = 64;         // logits of so many rows are held at once: 12.6 MB of address space, written a tile at a time
constexpr int kTileOutputs = 512; // a tile of 8 rows is 16 KB of logits: half of the smallest first-level cache in use

struct Best {
  float value;
  int id;
};

using Four = float __attribute__((vector_size(16)));

// Highest of values[0..n); the compilers do not vectorise a maximum of floats by themselves, because of NaN.
float highest(const float* values, int n) {
  float most = -std::numeric_limits<float>::infinity();
  int i = 0;
  if (n >= 16) {
    Four m[4];
    std::memcpy(m, values, sizeof m);
    for (i = 16; i + 16 <= n; i += 16) {
      Four v[4];
      std::memcpy(v, values + i, sizeof v);
      for (int j = 0; j < 4; j++) m[j] = v[j] > m[j] ? v[j] : m[j];
    }
    for (const Four& four : m) {
      for (int j = 0; j < 4; j++) most = std::max(most, four[j]);
    }
  }
  for (; i < n; i++) most = std::max(most, values[i]);
  return most;
}

bool only_greedy(const Pick& p) {
  return p.sampling != nullptr && p.sampling->temperature == 0 && p.top == 0 && !p.want_logprob && p.query == nullptr;
}
}  // namespace

struct Head {
  Weight* output;
  int tiles;
  std::vector<float> logits;
  std::vector<char> scratch;
  std::vector<Best> best;  // [threads][kRows]
};

Head* head_load(const Gguf& file, const Config&) {
  const Tensor* matrix = &file.tensor(file.tensors.count("output.weight") ? "output.weight" : "token_embd.weight");
  Weight* w = linear_pack({&matrix, 1});
  const int tiles = std::max(1, linear_outputs(*w) / kTileOutputs);
  return new Head{w, tiles, std::vector<float>(size_t(kRows) * size_t(linear_outputs(*w))), std::vector<char>(linear_scratch(*w, kRows)),
                  std::vector<Best>(size_t(threads()) * kRows)};
}

void head_pick(Head& h, const float* hidden, int n, Pick* picks) {
  const size_t vocab = size_t(linear_outputs(*h.output)), dim = size_t(linear_inputs(*h.output));
  for (int first = 0; first < n; first += kRows) {
    const int rows = std::min(kRows, n - first);
    const float* x = hidden + size_t(first) * dim;
    parallel([&](int part, int parts) {
      Best* mine = &h.best[size_t(part) * kRows];
      std::fill(mine, mine + rows, Best{-std::numeric_limits<float>::infinity(), 0});
      linear_prepare(*h.output, x, rows, h.scratch.data(), part, parts);
      barrier();
      // A thread takes neighbouring tiles in rising order, so of equal values it keeps the lowest id.
      for (int tile = h.tiles * part / parts; tile < h.tiles * (part + 1) / parts; tile++) {
        linear_compute(*h.output, x, h.scratch.data(), rows, h.logits.data(), tile, h.tiles);
        const Range range = linear_range(*h.output, tile, h.tiles);
        for (int r = 0; r < rows; r++) {
          const float* logits = &h.logits[size_t(r) * vocab];
          const float most = highest(logits + range.first, range.last - range.first);
          if (most > mine[r].value) mine[r] = {most, int(std::find(logits + range.first, logits + range.last, most) - logits)};
        }
      }
      barrier();
      for (int r = part; r < rows; r += parts) {
        Pick& pick = picks[first + r];
        if (!only_greedy(pick)) {
          fill_pick(&h.logits[size_t(r) * vocab], int(vocab), pick);
          continue;
        }
        Best best = h.best[size_t(r)];
        for (int t = 1; t < parts; t++) {
          const Best& other = h.best[size_t(t) * kRows + size_t(r)];
          if (other.value > best.value) best = other;
        }
        pick.token = best.id;
      }
    });
  }
}
