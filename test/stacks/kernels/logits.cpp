// Writes the log-probabilities of the whole vocabulary at every position, as float32, through whichever bindings it is linked with.
// Usage: logits MODEL CPUS IDS ROWS OUT: IDS holds one sequence of token ids a line; ROWS tokens are fed a step.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <sstream>
#include "../../../stacks/cpu/seams/head.h"
#include "../../../stacks/cpu/seams/layer.h"
#include "../../../stacks/cpu/seams/threading.h"

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  threads_start(argv[2]);
  const Gguf file = read_gguf(argv[1]);
  const Config c = read_config(file);
  Body* body = body_load(file, c);
  Head* head = head_load(file, c);
  const int rows = std::atoi(argv[4]);
  std::vector<int> all(static_cast<size_t>(c.vocab)), want(static_cast<size_t>(rows));
  std::iota(all.begin(), all.end(), 0);
  std::iota(want.begin(), want.end(), 0);
  std::vector<float> hidden(static_cast<size_t>(rows) * static_cast<size_t>(c.dim));
  FILE* out = std::fopen(argv[5], "wb");
  std::ifstream lines(argv[3]);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<int> ids;
    for (int id; words >> id;) ids.push_back(id);
    const int length = static_cast<int>(ids.size());
    KvCache* kv = kv_new(c, length);
    for (int p = 0; p < length; p += rows) {
      const int n = std::min(rows, length - p);
      std::vector<Row> step;
      for (int i = 0; i < n; i++) step.push_back({ids[static_cast<size_t>(p + i)], p + i, kv});
      body_forward(*body, step.data(), n, want.data(), n, hidden.data());
      std::vector<Pick> picks(static_cast<size_t>(n));
      for (Pick& pick : picks) pick.query = &all;
      head_pick(*head, hidden.data(), n, picks.data());
      for (const Pick& pick : picks) std::fwrite(pick.query_logprobs.data(), 4, all.size(), out);
    }
    kv_free(kv);
  }
  std::fclose(out);
}
