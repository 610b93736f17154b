#include "sample.h"
#include <algorithm>
#include <cmath>

namespace {
double uniform(uint64_t& state) {  // splitmix64: [0, 1) in steps of 2^-53
  uint64_t z = state += 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9, z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return double((z ^ z >> 31) >> 11) * 0x1p-53;
}
}  // namespace

int argmax(const float* logits, int n) { return int(std::max_element(logits, logits + n) - logits); }

double log_sum_exp(const float* logits, int n) {
  const float most = logits[argmax(logits, n)];
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += std::exp(logits[i] - most);
  return most + std::log(sum);
}

int sample(const float* logits, int n, Sampling& s) {
  const int best = argmax(logits, n);
  if (s.temperature <= 0) return best;
  std::vector<std::pair<float, int>> weights(n);  // the id is negated so that of equal weights the lower id comes first
  double total = 0, draw = uniform(s.rng), sum = 0;
  for (int i = 0; i < n; ++i) total += (weights[i] = {std::exp((logits[i] - logits[best]) / s.temperature), -i}).first;
  if (s.top_p >= 1) {
    for (draw *= total; const auto& [weight, id] : weights) if ((sum += weight) > draw) return -id;
    return best;  // rounding left a sliver at the end
  }
  std::make_heap(weights.begin(), weights.end());  // a heap, because the nucleus is mostly a few of the 49,152
  auto end = weights.end();
  for (; end != weights.begin() && sum < s.top_p * total; sum += end->first) std::pop_heap(weights.begin(), end--);
  double left = draw * sum;
  for (auto w = weights.end(); w-- != end;) if ((left -= w->first) < 0) return -w->second;
  return best;
}

void fill_pick(const float* logits, int n, Pick& p) {
  if (p.sampling) p.token = sample(logits, n, *p.sampling);
  p.tops.clear(), p.query_logprobs.clear();
  if (!p.want_logprob && !p.top && !p.query) return;
  const double all = log_sum_exp(logits, n);
  if (p.token >= 0) p.logprob = float(logits[p.token] - all);
  if (p.query) for (const int id : *p.query) p.query_logprobs.push_back(float(logits[id] - all));
  for (int i = 0; p.top && i < n; ++i) {  // kept sorted, best first; a later id does not pass an equal one
    if (int(p.tops.size()) == p.top && logits[i] <= p.tops.back().second) continue;
    if (int(p.tops.size()) == p.top) p.tops.pop_back();
    const auto place = std::upper_bound(p.tops.begin(), p.tops.end(), logits[i], [](float x, const auto& t) { return x > t.second; });
    p.tops.insert(place, {i, logits[i]});
  }
  for (auto& [id, value] : p.tops) value = float(value - all);
}
