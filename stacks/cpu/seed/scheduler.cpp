// Seed: one request after another, one token a step.
#include "../seams/scheduler.h"

void scheduler_run(Queue& queue, Body& body, Head& head, const Config& c) {
  std::vector<float> hidden(c.dim);
  while (const auto request = queue.take()) {
    Request& r = *request;
    const int prompt = int(r.prompt.size()), wanted = 0;
    KvCache* kv = kv_new(c, prompt + r.max_tokens);
    Pick pick;
    for (int pos = 0; !r.cancelled && (pos < prompt || !r.score); ++pos) {
      const bool asked = r.score ? !r.query[pos].empty() : pos + 1 >= prompt;
      const Row row{pos < prompt ? r.prompt[pos] : pick.token, pos, kv};
      body_forward(body, &row, 1, &wanted, asked, hidden.data());
      if (!asked) continue;
      pick.sampling = r.score ? nullptr : &r.sampling;
      pick.query = r.score ? &r.query[pos] : nullptr;
      pick.top = r.top, pick.want_logprob = r.want_logprob;
      head_pick(head, hidden.data(), 1, &pick);
      if (r.score) r.scores[pos] = pick.query_logprobs;
      else if (!r.emit(pick)) break;
    }
    kv_free(kv);
    r.done();
  }
}
