// Seed: the output matrix as one more product, then the sampler of core/sample.h.
#include "../seams/head.h"
#include "../core/sample.h"
#include "../seams/linear.h"

namespace { constexpr int kRows = 8; }  // logits of so many rows are held at once: 1.6 MB

struct Head {
  Weight* output;
  std::vector<float> logits;
  std::vector<char> scratch;
};

Head* head_load(const Gguf& file, const Config&) {
  const Tensor* matrix = &file.tensor(file.tensors.count("output.weight") ? "output.weight" : "token_embd.weight");
  Weight* w = linear_pack({&matrix, 1});
  return new Head{w, std::vector<float>(size_t(kRows) * linear_outputs(*w)), std::vector<char>(linear_scratch(*w, kRows))};
}

void head_pick(Head& h, const float* hidden, int n, Pick* picks) {
  const size_t vocab = linear_outputs(*h.output), dim = linear_inputs(*h.output);
  for (int first = 0; first < n; first += kRows) {
    const int rows = std::min(kRows, n - first);
    parallel([&](int part, int parts) {
      linear_prepare(*h.output, hidden + first * dim, rows, h.scratch.data(), part, parts);
      barrier();
      linear_compute(*h.output, hidden + first * dim, h.scratch.data(), rows, h.logits.data(), part, parts);
      barrier();
      for (int r = part; r < rows; r += parts) fill_pick(&h.logits[r * vocab], int(vocab), picks[first + r]);
    });
  }
}
