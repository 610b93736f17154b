// KV caches that outlive their sequence: a fresh one costs a page fault for every 4 KiB that it grows into.
#pragma once
#include <vector>
#include "../../seams/attention.h"

class KvPool {
 public:
  struct Lease { KvCache* kv; int capacity; };

  explicit KvPool(const Config& c) : config_(c) {}
  ~KvPool() {
    for (const Lease& l : idle_) kv_free(l.kv);
  }
  // Whether a sequence of so many positions may start beside those that run. One alone always may.
  bool fits(int positions) const { return leased_ == 0 || leased_ + rounded(positions) <= kPositions; }

  Lease take(int positions) {
    const int capacity = rounded(positions);
    size_t best = idle_.size();
    for (size_t i = 0; i < idle_.size(); ++i) {
      if (idle_[i].capacity >= capacity && (best == idle_.size() || idle_[i].capacity < idle_[best].capacity)) best = i;
    }
    // One that is far too big stays for a sequence that needs it, and its positions would count against others.
    if (best < idle_.size() && idle_[best].capacity <= 2 * capacity) {
      const Lease lease = idle_[best];
      idle_.erase(idle_.begin() + best);
      leased_ += lease.capacity;
      return lease;
    }
    while (!idle_.empty() && leased_ + idle_positions() + capacity > kPositions) {
      kv_free(idle_.front().kv);
      idle_.erase(idle_.begin());
    }
    leased_ += capacity;
    return {kv_new(config_, capacity), capacity};
  }

  void give(const Lease& lease) {
    leased_ -= lease.capacity;
    idle_.push_back(lease);
  }

 private:
  // In all, leased and idle: 1.5 GB at the seed's 46 KB a position, which leaves room in the 4 GiB of stack.json.
  static constexpr int kPositions = 32768;

  static int rounded(int positions) { return (positions + 63) / 64 * 64; }  // so that requests of about one length share caches
  int idle_positions() const {
    int sum = 0;
    for (const Lease& l : idle_) sum += l.capacity;
    return sum;
  }

  const Config& config_;
  std::vector<Lease> idle_;  // longest idle first
  int leased_ = 0;           // positions
};
