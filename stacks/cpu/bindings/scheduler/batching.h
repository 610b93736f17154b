// Many sequences in one step: what the batching schedulers share. What goes into a step is each scheduler's own.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>
#include "../../seams/scheduler.h"
#include "kv-pool.h"

// One admitted request.
struct Sequence {
  std::shared_ptr<Request> request;
  KvPool::Lease cache;
  int pos = 0;        // positions that the cache holds
  int token = -1;     // what the next decoding row reads
  bool over = false;  // nothing more is wanted

  int prompt_left() const { return std::max(0, int(request->prompt.size()) - pos); }
};

// One pass through the model: rows of many sequences.
class Step {
 public:
  Step(Body& body, Head& head, const Config& c) : body_(body), head_(head), dim_(c.dim) {}

  int room() const { return body_max_rows() - int(rows_.size()); }
  bool empty() const { return rows_.empty(); }

  // The next tokens of the sequence's prompt, at most `most` and at most what there is room for. Answers how many.
  int add_prompt(Sequence& s, int most) {
    const int count = std::min({s.prompt_left(), most, room()});
    const Request& r = *s.request;
    for (int i = 0; i < count; ++i) {
      const int at = s.pos++;
      const bool asked = r.score ? !r.query[at].empty() : at + 1 == int(r.prompt.size());
      if (asked) want(s, r.score ? &r.query[at] : nullptr, at);
      rows_.push_back({r.prompt[at], at, s.cache.kv});
    }
    if (r.score && s.prompt_left() == 0) s.over = true;
    return count;
  }

  void add_decode(Sequence& s) {
    want(s, nullptr, s.pos);
    rows_.push_back({s.token, s.pos++, s.cache.kv});
  }

  // Runs the rows, hands each sequence what it asked for, and is empty again.
  void run() {
    hidden_.resize(std::max(hidden_.size(), wants_.size() * size_t(dim_)));
    body_forward(body_, rows_.data(), int(rows_.size()), wants_.data(), int(wants_.size()), hidden_.data());
    if (!wants_.empty()) head_pick(head_, hidden_.data(), int(wants_.size()), picks_.data());
    for (size_t i = 0; i < wants_.size(); ++i) {
      Sequence& s = *askers_[i].sequence;
      if (s.request->score) {
        s.request->scores[askers_[i].at] = std::move(picks_[i].query_logprobs);
      } else {
        s.token = picks_[i].token;
        s.over = !s.request->emit(picks_[i]);
      }
    }
    rows_.clear(), wants_.clear(), askers_.clear(), picks_.clear();
  }

 private:
  struct Asker { Sequence* sequence; int at; };

  // The row that is added next is one whose hidden state goes to the head.
  void want(Sequence& s, const std::vector<int>* query, int at) {
    wants_.push_back(int(rows_.size()));
    askers_.push_back({&s, at});
    Pick& p = picks_.emplace_back();
    p.sampling = query ? nullptr : &s.request->sampling;
    p.query = query;
    p.top = s.request->top;
    p.want_logprob = s.request->want_logprob;
  }

  Body& body_;
  Head& head_;
  const int dim_;
  std::vector<Row> rows_;
  std::vector<int> wants_;
  std::vector<Asker> askers_;
  std::vector<Pick> picks_;
  std::vector<float> hidden_;
};

// Serves the queue with up to `most` sequences at once. fill(step, sequences) adds at least one row of them to the step.
template <class Fill>
void serve_batched(Queue& queue, Body& body, Head& head, const Config& c, int most, Fill&& fill) {
  KvPool pool(c);
  Step step(body, head, c);
  std::vector<Sequence> sequences;  // in order of arrival
  std::shared_ptr<Request> next;    // taken from the queue, and waits for room
  for (;;) {
    const auto ended = [&](Sequence& s) {
      if (!s.over && !s.request->cancelled) return false;
      pool.give(s.cache);
      s.request->done();
      return true;
    };
    sequences.erase(std::remove_if(sequences.begin(), sequences.end(), ended), sequences.end());
    while (int(sequences.size()) < most) {
      if (!next) next = sequences.empty() ? queue.take() : queue.try_take();
      if (!next) break;
      const int positions = int(next->prompt.size()) + next->max_tokens;
      if (next->cancelled) {
        next->done();
        next.reset();
      } else if (pool.fits(positions)) {
        sequences.push_back({std::move(next), pool.take(positions)});
        next.reset();
      } else {
        break;
      }
    }
    if (sequences.empty()) return;  // the queue is closed
    fill(step, sequences);
    step.run();
  }
}
