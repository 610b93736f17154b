// flags:
// Seam `threading`: a pool with one pinned thread per entry of --cpus. Part 0 is the caller.
// Waiting spins for at most 50 µs, then sleeps in the kernel (std::atomic::wait is a futex): cores are shared with connection threads and
// clients, and a spinner that keeps its core from the thread it waits for costs more than the wake-up that it saves.
#include "../../seams/threading.h"
#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(50);

// A counter that threads wait on. On a cache line of its own: waiters poll it.
struct alignas(64) Event {
  std::atomic<uint32_t> value{0};
  std::atomic<uint32_t> sleepers{0};

  void advance() {
    value.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) != 0) value.notify_all();
  }
  // Returns once value differs from `old`.
  void wait_change(uint32_t old) {
    const auto until = Clock::now() + kSpin;
    do {
      for (int i = 0; i < 32; i++) {
        if (value.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__)
        _mm_pause();
#elif defined(__aarch64__)
        asm volatile("isb" ::: "memory");  // `yield` is a no-op on most cores; isb takes tens of cycles, as x86's pause does
#endif
      }
    } while (Clock::now() < until);
    sleepers.fetch_add(1, std::memory_order_seq_cst);  // before the look at value in wait(): advance() either sees us or we see it
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
    sleepers.fetch_sub(1, std::memory_order_relaxed);
  }
};

struct Pool {
  std::vector<int> cpus{-1};  // -1: not pinned (before threads_start)
  Event job;                  // advances when a job is set
  Event turn;                 // advances when the last part has come to a barrier
  alignas(64) std::atomic<uint32_t> arrived{0};
  void (*fn)(void*, int, int) = nullptr;
  void* ctx = nullptr;
};
Pool& pool() {
  static Pool* p = new Pool;  // never destroyed: workers outlive static destructors
  return *p;
}

void pin(int cpu) {
#ifdef __linux__
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);  // a CPU outside our cpuset: run unpinned rather than not at all
#else
  (void)cpu;
#endif
}

// "0,1" or "0-3,8" to a list of CPU numbers.
std::vector<int> parse_cpus(const char* text) {
  std::vector<int> out;
  for (const char* p = text; *p != 0;) {
    char* end = nullptr;
    const long first = std::strtol(p, &end, 10);
    long last = first;
    bool good = end != p && first >= 0;
    if (good && *end == '-') {
      p = end + 1;
      last = std::strtol(p, &end, 10);
      good = end != p && last >= first;
    }
    if (!good || last > 4095 || (*end != ',' && *end != 0)) throw std::runtime_error("--cpus: expected a list such as 0,1 or 0-3, got '" + std::string(text) + "'");
    for (long c = first; c <= last; c++) out.push_back(static_cast<int>(c));
    p = *end == ',' ? end + 1 : end;
  }
  if (out.empty()) throw std::runtime_error("--cpus: empty list");
  return out;
}

void work(int part) {
  Pool& p = pool();
  pin(p.cpus[static_cast<size_t>(part)]);
  for (uint32_t seen = 0;; seen++) {
    p.job.wait_change(seen);
    p.fn(p.ctx, part, threads());
    barrier();
  }
}

}  // namespace

int threads() { return static_cast<int>(pool().cpus.size()); }

void threads_start(const char* cpus) {
  Pool& p = pool();
  p.cpus = parse_cpus(cpus);
  for (int part = 1; part < threads(); part++) {
    try {
      std::thread(work, part).detach();
    } catch (const std::system_error& e) {  // a limit on processes, mostly: fewer threads do the same work
      std::fprintf(stderr, "threading/pool: %d of %d threads started: %s\n", part, threads(), e.what());
      p.cpus.resize(static_cast<size_t>(part));
    }
  }
}

void parallel_raw(void (*fn)(void*, int, int), void* ctx) {
  Pool& p = pool();
  thread_local bool pinned = false;
  if (!pinned) {
    pin(p.cpus[0]);
    pinned = true;
  }
  p.fn = fn;
  p.ctx = ctx;
  if (threads() > 1) p.job.advance();
  fn(ctx, 0, threads());
  barrier();
}

void barrier() {
  Pool& p = pool();
  const uint32_t n = static_cast<uint32_t>(threads());
  if (n == 1) return;
  const uint32_t turn = p.turn.value.load(std::memory_order_acquire);
  if (p.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == n) {
    p.arrived.store(0, std::memory_order_relaxed);
    p.turn.advance();
  } else {
    p.turn.wait_change(turn);
  }
}
