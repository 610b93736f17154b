// Continuous batching with chunked prefill: a step carries a row of every decoding sequence and a few rows of prompts, so that nobody who
// is already reading an answer waits for a long prompt.
#include "batching.h"

namespace {
constexpr int kSequences = 64;
// Prompt rows a step while others decode. More makes prompts faster and the others' tokens slower.
constexpr int kPromptRows = 96;
}  // namespace

void scheduler_run(Queue& queue, Body& body, Head& head, const Config& c) {
  const int most = std::min(kSequences, body_max_rows());
  serve_batched(queue, body, head, c, most, [](Step& step, std::vector<Sequence>& sequences) {
    std::vector<Sequence*> prompts;
    for (Sequence& s : sequences) {
      if (s.prompt_left() > 0) prompts.push_back(&s); else step.add_decode(s);
    }
    if (prompts.empty()) return;
    int budget = step.empty() ? step.room() : std::min(kPromptRows, step.room());
    // Half goes to the oldest, so that none starves; the rest to the shortest first, so that a short one does not wait for a long one.
    budget -= step.add_prompt(*prompts[0], (budget + 1) / 2);
    std::stable_sort(prompts.begin(), prompts.end(), [](auto* a, auto* b) { return a->prompt_left() < b->prompt_left(); });
    for (Sequence* s : prompts) budget -= step.add_prompt(*s, budget);
  });
}
