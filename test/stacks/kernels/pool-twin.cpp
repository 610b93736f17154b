// Runs a binding of `threading` and checks what its header promises: every part once, at the same time, none past a barrier before all have come.
// Usage: pool-twin CPUS MAY_START; MAY_START threads may be started, for the rest the kernel says no. Prints the number of parts, and a sum over
// work that was split among them.
#include <dlfcn.h>
#include <pthread.h>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "../../../stacks/cpu/seams/threading.h"

static int may_start = 0;

// Stands before the C library's: std::thread calls it.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  return may_start-- > 0 ? create(thread, attributes, run, argument) : EAGAIN;
}

static uint64_t mixed(uint64_t i) { return (i ^ i >> 7) * 0x9E3779B97F4A7C15; }

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  may_start = std::atoi(argv[2]);
  threads_start(argv[1]);
  const size_t n = size_t(threads()), items = 1000;
  std::vector<uint64_t> values(items), written(n);
  std::vector<int> calls(n);
  std::atomic<int> wrong{0};
  uint64_t sum = 0;
  for (uint64_t round = 1; round <= 400; round++) {
    parallel([&](int part, int parts) {
      const size_t p = size_t(part);
      wrong += size_t(parts) != n;
      calls[p]++;
      for (size_t i = items * p / n; i < items * (p + 1) / n; i++) values[i] = mixed(round * items + i);
      written[p] = round;
      barrier();
      for (const uint64_t w : written) wrong += w != round;
      const uint64_t other = values[(items * (p + 1) / n) % items];  // the next part's first
      barrier();
      for (size_t i = items * p / n; i < items * (p + 1) / n; i++) values[i] ^= other;
      written[p] = 0;
    });
    for (const uint64_t w : written) wrong += w != 0;
    for (size_t p = 0; p < n; p++) wrong += calls[p] != int(round);
    // Parts may have mixed in different neighbours: taken out again, what is left is the same for any number of parts.
    for (size_t p = 0; p < n; p++) {
      const uint64_t other = mixed(round * items + (items * (p + 1) / n) % items);
      for (size_t i = items * p / n; i < items * (p + 1) / n; i++) sum += mixed(values[i] ^ other);
    }
  }
  std::printf("%zu %llx\n", n, static_cast<unsigned long long>(sum));
  return wrong == 0 ? 0 : 1;
}
