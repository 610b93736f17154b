// Compares a binding of `head` with the sampler over a whole row of logits: greedy rows, ties, and rows that sample or ask for log-probabilities, in
// blocks of many sizes. Usage: head-twin CPUS. Links with one binding of `head`, one of `linear` and of `threading`, core/gguf.cpp and core/sample.cpp.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>
#include "../../../stacks/cpu/core/sample.h"
#include "../../../stacks/cpu/seams/head.h"
#include "../../../stacks/cpu/seams/linear.h"

constexpr int kVocab = 2700, kDim = 32;  // five tiles of 512 and what is left
constexpr int kTwins[] = {611, 1300};     // rows so far behind a row are its copies

static void fail(const char* what, int row, int got, int expected) {
  std::printf("%s of row %d is %d, not %d\n", what, row, got, expected);
  std::exit(1);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  threads_start(argv[1]);
  std::mt19937 rng(11);
  std::vector<float> matrix(size_t(kVocab) * kDim);
  for (float& v : matrix) v = rng() % 2 ? 1.0f : -1.0f;
  for (int row = 0; row < 600; row++) {
    for (const int behind : kTwins) std::memcpy(&matrix[size_t(row + behind) * kDim], &matrix[size_t(row) * kDim], kDim * sizeof(float));
  }
  Gguf file;
  file.tensors["output.weight"] = {Type::F32, kVocab, kDim, reinterpret_cast<const uint8_t*>(matrix.data())};
  Config config{};
  config.dim = kDim, config.vocab = kVocab;
  Head* head = head_load(file, config);
  const Tensor* output = &file.tensor("output.weight");
  const Weight* whole = linear_pack({&output, 1});
  for (const int n : {1, 2, 7, 64, 65, 130}) {
    std::vector<float> hidden(size_t(n) * kDim), logits(size_t(n) * kVocab);
    std::vector<int> targets;
    for (int r = 0; r < n; r++) {  // nearest to one row, which may be anywhere, or have two copies behind it
      targets.push_back(int(rng() % kVocab));
      for (int d = 0; d < kDim; d++) hidden[size_t(r) * kDim + size_t(d)] = matrix[size_t(targets.back()) * kDim + size_t(d)] / 4;
    }
    std::vector<char> scratch(linear_scratch(*whole, n));
    linear_prepare(*whole, hidden.data(), n, scratch.data(), 0, 1);
    linear_compute(*whole, hidden.data(), scratch.data(), n, logits.data(), 0, 1);
    std::vector<Sampling> mine(static_cast<size_t>(n)), theirs;
    const std::vector<int> asked = {5, kVocab - 1, 700};
    std::vector<Pick> picks(static_cast<size_t>(n)), expected;
    for (int r = 0; r < n; r++) {
      const size_t i = size_t(r);
      const int kind = r % 5;
      mine[i] = {kind == 2 ? 1.0f : 0.0f, kind == 2 && r % 2 ? 0.9f : 1.0f, rng()};
      if (kind != 4) picks[i].sampling = &mine[i];
      if (kind == 1) picks[i].want_logprob = true;
      if (kind == 3) picks[i].top = 4;
      if (kind == 4) picks[i].query = &asked;
    }
    theirs = mine, expected = picks;
    for (size_t i = 0; i < size_t(n); i++) {
      if (expected[i].sampling != nullptr) expected[i].sampling = &theirs[i];
      fill_pick(&logits[i * kVocab], kVocab, expected[i]);
    }
    head_pick(*head, hidden.data(), n, picks.data());
    for (int r = 0; r < n; r++) {
      const Pick &got = picks[size_t(r)], &want = expected[size_t(r)];
      if (got.token != want.token) fail("token", r, got.token, want.token);
      if (got.logprob != want.logprob || got.tops != want.tops || got.query_logprobs != want.query_logprobs) fail("log-probability", r, 0, 0);
      if (r % 5 != 0) continue;
      const int t = targets[size_t(r)], lowest = t >= 1300 && t < 1900 ? t - 1300 : t >= 611 && t < 1211 ? t - 611 : t;
      if (got.token != lowest) fail("lowest of equal ids", r, got.token, lowest);
    }
  }
  std::puts("ok");
}
