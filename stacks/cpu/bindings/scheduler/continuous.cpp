// Continuous batching: all running sequences decode together, one token each a step. New prompts go first, whole and together, because a
// sequence that joins early makes every later step serve one more for nearly the same reading of weights.
#include "batching.h"

namespace {
constexpr int kSequences = 64;
}

void scheduler_run(Queue& queue, Body& body, Head& head, const Config& c) {
  serve_batched(queue, body, head, c, std::min(kSequences, body_max_rows()), [](Step& step, std::vector<Sequence>& sequences) {
    for (Sequence& s : sequences) step.add_prompt(s, step.room());
    if (!step.empty()) return;
    for (Sequence& s : sequences) step.add_decode(s);
  });
}
