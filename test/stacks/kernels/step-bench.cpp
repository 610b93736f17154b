// Rates of a stack's engine without HTTP, tokenizer or scheduler: tokens a second while decoding M rows at a context, and of prefill.
// Usage: step-bench MODEL CPUS [SECONDS]. Compile with -DATTENTION='"…/packed.cpp"' (a file that defines kv_* and attend), and link everything
// else: attention is compiled into this file under other names, so that its share can be taken.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "../../../stacks/cpu/seams/head.h"
#include "../../../stacks/cpu/seams/layer.h"
#include "../../../stacks/cpu/seams/threading.h"
#define attend attend_measured
#include ATTENTION
#undef attend

#ifdef CPU_TIME  // for one CPU on a busy machine: time that the process really ran
#include <ctime>
struct Clock {
  using duration = std::chrono::nanoseconds;
  using time_point = std::chrono::time_point<Clock, duration>;
  static time_point now() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return time_point(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
  }
};
#else
using Clock = std::chrono::steady_clock;
#endif
static double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }
static double attention_seconds = 0;

void attend(const Config& c, int layer, const Row* rows, int n, const float* q, int stride, float* out, int part, int parts) {
  const auto start = Clock::now();
  attend_measured(c, layer, rows, n, q, stride, out, part, parts);
  if (part == 0) attention_seconds += since(start);
}

struct Times {
  double step = 1e9, head = 1e9, attention = 1e9;
};

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const double seconds = argc > 3 ? std::atof(argv[3]) : 1;
  threads_start(argv[2]);
  const Gguf file = read_gguf(argv[1]);
  const Config c = read_config(file);
  Body* body = body_load(file, c);
  Head* head = head_load(file, c);
  std::vector<KvCache*> caches;
  for (int i = 0; i < 32; i++) caches.push_back(kv_new(c, 640));
  std::vector<float> hidden(static_cast<size_t>(32) * static_cast<size_t>(c.dim));
  const auto measure = [&](const std::vector<Row>& rows, const std::vector<int>& want) {
    Times best;
    std::vector<Sampling> greedy(want.size());
    const auto start = Clock::now();
    do {
      std::vector<Pick> picks(want.size());
      for (size_t i = 0; i < want.size(); i++) picks[i].sampling = &greedy[i];
      attention_seconds = 0;
      const auto step = Clock::now();
      body_forward(*body, rows.data(), static_cast<int>(rows.size()), want.data(), static_cast<int>(want.size()), hidden.data());
      const auto middle = Clock::now();
      head_pick(*head, hidden.data(), static_cast<int>(want.size()), picks.data());
      const double took = since(step);
      if (took < best.step) best = {took, since(middle), attention_seconds};
    } while (since(start) < seconds);
    return best;
  };
  const auto report = [](const char* what, int n, int context, const Times& t) {
    std::printf("%-7s n=%-3d context=%-4d %8.3f ms %8.1f tok/s  attention %4.1f%% head %4.1f%%\n", what, n, context, t.step * 1e3, n / t.step,
                100 * t.attention / t.step, 100 * t.head / t.step);
    std::fflush(stdout);
  };
  for (const int context : {128, 512}) {
    for (const int n : {1, 2, 3, 4, 8, 16, 32}) {
      std::vector<Row> rows;
      std::vector<int> want;
      for (int i = 0; i < n; i++) {
        rows.push_back({100 + 37 * i, context, caches[static_cast<size_t>(i)]});
        want.push_back(i);
      }
      report("decode", n, context, measure(rows, want));
    }
  }
  for (const int n : {64, 128, 256, 512}) {
    std::vector<Row> rows;
    for (int i = 0; i < n; i++) rows.push_back({100 + 37 * i, i, caches[0]});
    report("prefill", n, 0, measure(rows, {n - 1}));
  }
}
