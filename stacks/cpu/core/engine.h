// What passes between the API's connection threads and the scheduler.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>
#include "model.h"

struct Sampling {
  float temperature = 0;  // 0 is greedy
  float top_p = 1;
  uint64_t rng = 0;       // state; the sampler advances it
};

// One row's question to the head, and its answer.
struct Pick {
  Sampling* sampling = nullptr;             // in; null: no token is wanted (scoring)
  int top = 0;                              // in; number of top log-probabilities wanted
  bool want_logprob = false;                // in; whether `logprob` of the token is wanted
  const std::vector<int>* query = nullptr;  // in; ids whose log-probabilities are wanted, or null
  int token = -1;
  float logprob = 0;
  std::vector<std::pair<int, float>> tops;  // best first
  std::vector<float> query_logprobs;        // in the order of query
};

struct Request {
  std::vector<int> prompt;
  int max_tokens = 0;
  Sampling sampling;
  int top = 0;
  bool want_logprob = false;
  // Scoring: score is set, max_tokens is 0; query[i] holds the ids asked after prompt[0..i]; answers go to scores[i].
  bool score = false;
  std::vector<std::vector<int>> query;
  std::vector<std::vector<float>> scores;
  // Called on the scheduler's thread with each new token. False: the request is over (length, EOS, stop, client gone).
  std::function<bool(const Pick&)> emit;
  // Called on the scheduler's thread exactly once, after the last emit.
  std::function<void()> done;
  std::atomic<bool> cancelled{false};  // the scheduler drops a cancelled request at the next step, then calls done
};

// Requests that wait to be admitted, in order of arrival. No bound here: the API bounds its connections.
class Queue {
 public:
  void push(std::shared_ptr<Request> r);
  std::shared_ptr<Request> take();      // blocks; null when closed and empty
  std::shared_ptr<Request> try_take();  // null when empty
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::shared_ptr<Request>> waiting_;
  bool closed_ = false;
};
