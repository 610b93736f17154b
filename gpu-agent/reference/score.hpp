// Turns hidden states into what is asked: the most likely ids with their log-probabilities, and those of the given ids.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "forward.hpp"

namespace ref {

constexpr size_t TOP = 64;
// Positions whose logits are held at once (256 x 49,152 float32 = 50 MB).
constexpr size_t HEAD_ROWS = 256;

struct Prediction {
  std::vector<int32_t> ids;       // most likely first; equal logits by ascending id
  std::vector<float> logprobs;
  float next = std::numeric_limits<float>::quiet_NaN();  // of the sequence's own next token; NaN after its last
};
struct Scored {
  std::vector<Prediction> positions;  // from Sequence::from on
  std::vector<float> extras;
};

inline double logSumExp(const float* logits, size_t n) {
  const auto top = static_cast<double>(*std::max_element(logits, logits + n));
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += std::exp(static_cast<double>(logits[i]) - top);
  return top + std::log(sum);
}

inline std::vector<int32_t> topIds(const float* logits, size_t n, size_t count) {
  const auto before = [logits](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  std::vector<int32_t> heap;  // the least likely of those kept is in front
  for (size_t i = 0; i < n; i++) {
    const auto id = static_cast<int32_t>(i);
    if (heap.size() < count) {
      heap.push_back(id);
      std::push_heap(heap.begin(), heap.end(), before);
    } else if (before(id, heap.front())) {
      std::pop_heap(heap.begin(), heap.end(), before);
      heap.back() = id;
      std::push_heap(heap.begin(), heap.end(), before);
    }
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

inline std::vector<Scored> score(const Model& m, const Kernel& kernel, Workers& workers, const std::vector<Sequence>& sequences) {
  const Batch batch = makeBatch(sequences);
  const std::vector<float> hidden = forward(m, kernel, workers, batch);
  struct Want {
    uint32_t sequence, position, node;
  };
  std::vector<Want> wants;
  std::vector<Scored> result(sequences.size());
  for (uint32_t s = 0; s < sequences.size(); s++) {
    for (uint32_t p = sequences[s].from; p < sequences[s].tokens.size(); p++) wants.push_back({s, p, batch.paths[s].nodes[p]});
    result[s].positions.resize(sequences[s].tokens.size() - sequences[s].from);
    result[s].extras.resize(sequences[s].extras.size());
  }
  std::sort(wants.begin(), wants.end(), [](const Want& a, const Want& b) { return a.node < b.node; });

  std::vector<float> rows, logits;
  for (size_t at = 0; at < wants.size();) {
    std::vector<Want> chunk;
    std::vector<size_t> rowOf;
    rows.clear();
    for (; at < wants.size(); at++) {
      const bool known = !chunk.empty() && chunk.back().node == wants[at].node;
      if (!known) {
        if (rows.size() == HEAD_ROWS * m.dim) break;
        const float* h = hidden.data() + wants[at].node * m.dim;
        rows.insert(rows.end(), h, h + m.dim);
      }
      chunk.push_back(wants[at]);
      rowOf.push_back(rows.size() / m.dim - 1);
    }
    const size_t count = rows.size() / m.dim;
    logits.resize(count * m.vocab);
    multiply(workers, kernel, m.head, PackedRows(rows.data(), count, m.dim), logits.data());
    workers.run(chunk.size(), [&](size_t i) {
      const Want& want = chunk[i];
      const Sequence& s = sequences[want.sequence];
      const float* l = logits.data() + rowOf[i] * m.vocab;
      const double total = logSumExp(l, m.vocab);
      const auto logprob = [&](int32_t id) { return static_cast<float>(static_cast<double>(l[id]) - total); };
      Prediction& out = result[want.sequence].positions[want.position - s.from];
      out.ids = topIds(l, m.vocab, std::min(TOP, m.vocab));
      for (const int32_t id : out.ids) out.logprobs.push_back(logprob(id));
      if (want.position + 1 < s.tokens.size()) out.next = logprob(s.tokens[want.position + 1]);
      for (size_t e = 0; e < s.extras.size(); e++)
        if (s.extras[e].first == want.position) result[want.sequence].extras[e] = logprob(s.extras[e].second);
    });
  }
  return result;
}

}  // namespace ref
