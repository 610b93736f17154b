// Compares a linear binding with a plain sum in double over the file's exact weights: every tensor type, mixed packs, row counts that end a
// tile early, outputs that end a panel early, and parts that don't divide anything. Usage: linear-twin FAMILY TOLERANCE; prints the worst error.
// Links with one binding of `linear`, core/gguf.cpp and a binding of `threading`.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>
#include "../../../stacks/cpu/bindings/lib/half.h"
#include "../../../stacks/cpu/bindings/lib/isa.h"
#include "../../../stacks/cpu/seams/linear.h"

static std::mt19937 rng(7);

struct Owned {
  std::vector<uint8_t> bytes;
  Tensor t;
};
static Owned random_tensor(Type type, int rows, int cols) {
  Owned o;
  o.t = {type, rows, cols, nullptr};
  o.bytes.resize(o.t.row_bytes() * static_cast<size_t>(rows));
  const auto uniform = [] { return static_cast<float>(rng() % 2001) / 1000 - 1; };
  if (type == Type::F32 || type == Type::F16) {
    for (size_t i = 0; i < static_cast<size_t>(rows) * static_cast<size_t>(cols); i++) {
      const float f = uniform() / 8;
      const uint16_t h = float_to_half(f);
      if (type == Type::F32) std::memcpy(&o.bytes[4 * i], &f, 4);
      else std::memcpy(&o.bytes[2 * i], &h, 2);
    }
  } else {
    const size_t block = type == Type::Q4_0 ? 18 : type == Type::Q4_1 ? 20 : 34;
    for (uint8_t& b : o.bytes) b = static_cast<uint8_t>(rng());
    for (size_t at = 0; at < o.bytes.size(); at += block) {
      const uint16_t d = float_to_half(uniform() / 64), m = float_to_half(uniform() / 8);
      std::memcpy(&o.bytes[at], &d, 2);
      if (type == Type::Q4_1) std::memcpy(&o.bytes[at + 2], &m, 2);
    }
  }
  return o;
}

static double worst = 0;

static void check(std::vector<Owned> owned, int rows, int parts) {
  std::vector<const Tensor*> tensors;
  for (Owned& o : owned) {
    o.t.data = o.bytes.data();  // the bytes moved with their owner
    tensors.push_back(&o.t);
  }
  Weight* w = linear_pack(tensors);
  const size_t n = static_cast<size_t>(linear_outputs(*w)), k = static_cast<size_t>(linear_inputs(*w)), r = static_cast<size_t>(rows);
  std::vector<float> x(r * k), y(r * n, NAN), row(k);
  for (float& v : x) v = static_cast<float>(rng() % 2001) / 1000 - 1;
  for (size_t i = 0; i < r; i++) x[i * k + rng() % k] = 20;  // an outlier, as real activations have
  void* scratch = std::aligned_alloc(64, (linear_scratch(*w, rows) + 127) / 64 * 64);
  for (int p = 0; p < 3; p++) linear_prepare(*w, x.data(), rows, scratch, p, 3);
  int next = 0;
  for (int p = 0; p < parts; p++) {
    const Range range = linear_range(*w, p, parts);
    if (range.first != next) std::printf("range of part %d of %d starts at %d, not %d\n", p, parts, range.first, next), std::exit(1);
    next = range.last;
    linear_compute(*w, x.data(), scratch, rows, y.data(), p, parts);
  }
  if (next != static_cast<int>(n)) std::printf("ranges end at %d, not %zu\n", next, n), std::exit(1);
  size_t output = 0;
  for (const Tensor* t : tensors) {
    for (int o = 0; o < t->rows; o++, output++) {
      dequantise_row(*t, o, row.data());
      for (size_t i = 0; i < r; i++) {
        double sum = 0, size = 0;
        for (size_t j = 0; j < k; j++) {
          const double product = static_cast<double>(row[j]) * static_cast<double>(x[i * k + j]);
          sum += product;
          size += product * product;
        }
        const double error = std::fabs(static_cast<double>(y[i * n + output]) - sum) / std::sqrt(size);
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
    }
  }
  std::free(scratch);
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  isa() = std::strcmp(argv[1], "avx512") == 0 ? Isa::avx512 : std::strcmp(argv[1], "avx2") == 0 ? Isa::avx2 : Isa::portable;
  const auto pack = [](auto... types) { return std::vector<Owned>{random_tensor(types.first, types.second, 96)...}; };
  using P = std::pair<Type, int>;
  for (const int rows : {1, 2, 3, 4, 5, 6, 7, 12, 15, 17, 33, 50, 130}) check(pack(P{Type::Q4_1, 72}), rows, 2);
  for (const int parts : {1, 3, 7, 40}) check(pack(P{Type::Q4_1, 50}, P{Type::Q4_0, 13}), 5, parts);
  for (const int rows : {1, 6, 13, 40}) check(pack(P{Type::Q8_0, 41}), rows, 3);
  for (const int rows : {2, 14}) check(pack(P{Type::Q4_1, 20}, P{Type::Q8_0, 9}, P{Type::Q4_0, 30}), rows, 4);
  const double exact = worst;
  worst = 0;
  check(pack(P{Type::F16, 33}, P{Type::F32, 7}), 9, 2);
  std::printf("{\"exact\":%.3g,\"floats\":%.3g}\n", exact, worst);
  return exact <= std::atof(argv[2]) && worst <= 0.05 ? 0 : 1;
}
