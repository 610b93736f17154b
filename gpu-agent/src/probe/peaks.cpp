// Peaks of this machine, as JSON {"memoryGBs": …, "gops": …}: `peaks <type> <MiB> <processor> …`, one thread on each processor. Memory: reads of a block of so many MiB, which
// should be far larger than the caches. Operations: independent chains in registers, of the type that was named (which the caller chose by CPUID bits); multiply and add are two.
// Each is the best of short slices that all threads run at once, so a neighbour that runs for some of the time does not lower it. Takes under 2 s.
#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

using Clock = std::chrono::steady_clock;
/** Does one portion of work and returns how much it was. */
using Work = std::function<double(int thread)>;

static std::vector<int> processors;
static volatile uint64_t sink;

/** Sum over the threads of work per ns, in the best of `slices` slices of `sliceMs`. */
static double best(int slices, int sliceMs, const Work& work) {
  const int n = int(processors.size());
  std::vector<double> rates(size_t(n), 0.0);
  double most = 0;
  auto sumUp = [&]() noexcept {
    double sum = 0;
    for (double r : rates) sum += r;
    most = std::max(most, sum);
  };
  std::barrier start(n);
  std::barrier<decltype(sumUp)> end(n, sumUp);
  std::vector<std::thread> threads;
  for (int t = 0; t < n; t++)
    threads.emplace_back([&, t] {
#if defined(__linux__)
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(processors[size_t(t)], &set);
      sched_setaffinity(0, sizeof set, &set);
#endif
      work(t);
      for (int s = 0; s < slices; s++) {
        start.arrive_and_wait();
        const auto from = Clock::now();
        double done = 0, ns = 0;
        do {
          done += work(t);
          ns = std::chrono::duration<double, std::nano>(Clock::now() - from).count();
        } while (ns < sliceMs * 1e6);
        rates[size_t(t)] = done / ns;
        end.arrive_and_wait();
      }
    });
  for (auto& t : threads) t.join();
  return most;
}

/** Reads with loads that the compiler makes as wide as the function's target allows; LANES 64-bit words at once fill half of its registers. */
#define READ(NAME, TARGET, LANES)                              \
  TARGET static uint64_t NAME(const uint64_t* p, size_t n) {   \
    uint64_t a[LANES] = {};                                    \
    for (size_t i = 0; i + LANES <= n; i += LANES)             \
      for (size_t j = 0; j < LANES; j++) a[j] ^= p[i + j];     \
    uint64_t all = 0;                                          \
    for (uint64_t x : a) all ^= x;                             \
    return all;                                                \
  }
READ(readPlain, , 16)
/** Independent chains of multiply and add in single precision, as wide as the compiler's default target makes them. */
static double floats(int) {
  constexpr int chains = 48;
  float a[chains];
  for (int j = 0; j < chains; j++) a[j] = float(j);
  const float m = 0.999f + 1e-9f * float(sink & 1), c = 1e-3f;
  for (int i = 0; i < 4096; i++)
    for (int j = 0; j < chains; j++) a[j] = a[j] * m + c;
  float sum = 0;
  for (float x : a) sum += x;
  sink = sink ^ uint64_t(sum);
  return 2.0 * 4096 * chains;
}

#if defined(__x86_64__)
READ(readAvx2, __attribute__((target("avx2"))), 32)
READ(readAvx512, __attribute__((target("avx512f"))), 128)

__attribute__((target("avx2,fma"))) static double fma256(int) {
  __m256 a[10];
#pragma GCC unroll 16
  for (int j = 0; j < 10; j++) a[j] = _mm256_set1_ps(float(j));
  const __m256 m = _mm256_set1_ps(0.999f), c = _mm256_set1_ps(1e-3f);
  for (int i = 0; i < 4096; i++)
#pragma GCC unroll 16
    for (auto& x : a) {
      x = _mm256_fmadd_ps(x, m, c);
      __asm__ volatile("" : "+x"(x));
    }
  return 4096.0 * 10 * 8 * 2;
}

__attribute__((target("avx512f"))) static double fma512(int) {
  __m512 a[10];
#pragma GCC unroll 16
  for (int j = 0; j < 10; j++) a[j] = _mm512_set1_ps(float(j));
  const __m512 m = _mm512_set1_ps(0.999f), c = _mm512_set1_ps(1e-3f);
  for (int i = 0; i < 4096; i++)
#pragma GCC unroll 16
    for (auto& x : a) {
      x = _mm512_fmadd_ps(x, m, c);
      __asm__ volatile("" : "+v"(x));
    }
  return 4096.0 * 10 * 16 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) static double vnni512(int) {
  __m512i a[12];
#pragma GCC unroll 16
  for (int j = 0; j < 12; j++) a[j] = _mm512_set1_epi32(j);
  const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
  for (int i = 0; i < 4096; i++)
#pragma GCC unroll 16
    for (auto& z : a) {
      z = _mm512_dpbusd_epi32(z, x, y);
      __asm__ volatile("" : "+v"(z));
    }
  return 4096.0 * 12 * 64 * 2;
}

/** 8-bit products by AVX2: multiply pairs to 16 bits, add pairs to 32, add: what integer kernels do without VNNI. */
__attribute__((target("avx2"))) static double int8avx2(int) {
  __m256i a[8];
#pragma GCC unroll 16
  for (int j = 0; j < 8; j++) a[j] = _mm256_set1_epi32(j);
  __m256i x = _mm256_set1_epi8(3);
  const __m256i y = _mm256_set1_epi8(5), one = _mm256_set1_epi16(1);
  for (int i = 0; i < 4096; i++)
#pragma GCC unroll 16
    for (auto& z : a) {
      __asm__ volatile("" : "+x"(x));
      z = _mm256_add_epi32(z, _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), one));
      __asm__ volatile("" : "+x"(z));
    }
  return 4096.0 * 8 * 32 * 2;
}

/** rows and columns of eight full tiles; the memory clobber below keeps gcc 12 from dropping these stores. */
struct alignas(64) TileShape {
  uint8_t palette = 1, startRow = 0, reserved[14] = {};
  uint16_t rowBytes[16] = {};
  uint8_t rows[16] = {};
};

__attribute__((target("amx-tile,amx-int8,amx-bf16"))) static double tiles(bool ints) {
  alignas(64) static uint8_t data[4096];
  TileShape shape;
  for (int i = 0; i < 8; i++) shape.rowBytes[i] = 64, shape.rows[i] = 16;
  __asm__ volatile("" : : "r"(&shape) : "memory");
  _tile_loadconfig(&shape);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, data, 64);
  _tile_loadd(5, data + 1024, 64);
  _tile_loadd(6, data + 2048, 64);
  _tile_loadd(7, data + 3072, 64);
  for (int i = 0; i < 1024; i++) {
    if (ints) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_release();
  return 1024.0 * 4 * 16 * 16 * (ints ? 64 : 32) * 2;
}
#endif

static Work workOf([[maybe_unused]] const std::string& type) {
#if defined(__x86_64__)
  if (type == "int8-amx" || type == "bf16-amx") {
    // ARCH_REQ_XCOMP_PERM for XTILEDATA, before the threads start.
    if (syscall(SYS_arch_prctl, 0x1023, 18) != 0) std::exit(3);
    return [ints = type == "int8-amx"](int) { return tiles(ints); };
  }
  if (type == "int8-avx512-vnni") return vnni512;
  if (type == "f32-avx512") return fma512;
  if (type == "int8-avx2") return int8avx2;
  if (type == "f32-avx2") return fma256;
#endif
  return floats;
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const std::string type = argv[1];
  const size_t bytes = size_t(std::atoi(argv[2])) << 20;
  for (int i = 3; i < argc; i++) processors.push_back(std::atoi(argv[i]));
  auto read = readPlain;
#if defined(__x86_64__)
  if (type.find("avx512") != std::string::npos || type.find("amx") != std::string::npos) read = readAvx512;
  else if (type.find("avx2") != std::string::npos) read = readAvx2;
#endif
  const Work work = workOf(type);
  // In parts, so that no thread reads what another has just fetched.
  const size_t part = bytes / processors.size() / 4096 * 4096;
  void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return 4;
#if defined(__linux__)
  madvise(block, bytes, MADV_HUGEPAGE);
#endif
  std::memset(block, 1, bytes);
  std::vector<size_t> at(processors.size(), 0);
  const size_t portion = std::min(part, size_t(4) << 20);
  const double memory = best(8, 60, [&](int t) {
    if (at[size_t(t)] + portion > part) at[size_t(t)] = 0;
    const char* p = static_cast<char*>(block) + size_t(t) * part + at[size_t(t)];
    sink = sink ^ read(reinterpret_cast<const uint64_t*>(p), portion / 8);
    at[size_t(t)] += portion;
    return double(portion);
  });
  std::printf("{\"memoryGBs\": %.3f, \"gops\": %.3f}\n", memory, best(10, 25, work));
}
