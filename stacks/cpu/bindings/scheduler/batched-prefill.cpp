// One request at a time; its prompt goes through in steps of as many tokens as the body takes, so that weights are read once for all.
#include "batching.h"

void scheduler_run(Queue& queue, Body& body, Head& head, const Config& c) {
  serve_batched(queue, body, head, c, 1, [](Step& step, std::vector<Sequence>& sequences) {
    Sequence& s = sequences[0];
    if (step.add_prompt(s, step.room()) == 0) step.add_decode(s);
  });
}
