// Compares an attention binding with plain softmax attention in double: sequences of mixed lengths in one step, prefill and decode, any
// number of parts. Usage: attention-twin FAMILY TOLERANCE. Links with one binding of `attention`.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>
#include "../../../stacks/cpu/bindings/lib/isa.h"
#include "../../../stacks/cpu/seams/attention.h"

static std::mt19937 rng(3);
static float uniform() { return static_cast<float>(rng() % 2001) / 1000 - 1; }

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  isa() = std::strcmp(argv[1], "avx512") == 0 ? Isa::avx512 : std::strcmp(argv[1], "avx2") == 0 ? Isa::avx2 : Isa::portable;
  double worst = 0;
  for (const int kv_heads : {3, 1, 2}) {
    Config c{};
    c.layers = 2, c.head_dim = kv_heads == 2 ? 48 : 64, c.kv_heads = kv_heads, c.heads = kv_heads * (kv_heads == 2 ? 7 : 3);
    const size_t dim = static_cast<size_t>(c.head_dim), width = static_cast<size_t>(c.kv_heads) * dim, wide = static_cast<size_t>(c.heads) * dim;
    struct Sequence {
      KvCache* kv;
      std::vector<float> k, v;
      int length = 0;
    };
    std::vector<Sequence> sequences(4);
    for (Sequence& s : sequences) s.kv = kv_new(c, 200);
    const int lengths[][4] = {{1, 17, 33, 5}, {40, 1, 1, 1}, {1, 1, 1, 1}, {0, 70, 0, 1}, {1, 1, 1, 1}};
    for (const auto& step : lengths) {
      std::vector<Row> rows;
      for (size_t s = 0; s < 4; s++)
        for (int i = 0; i < step[s]; i++) rows.push_back({0, sequences[s].length + i, sequences[s].kv});
      const int n = static_cast<int>(rows.size());
      const size_t stride = wide + 2 * width;
      std::vector<float> in(stride * rows.size()), out(wide * rows.size(), NAN);
      for (float& f : in) f = 2 * uniform();
      size_t r = 0;
      for (size_t s = 0; s < 4; s++) {
        for (int i = 0; i < step[s]; i++, r++) {
          sequences[s].k.insert(sequences[s].k.end(), &in[r * stride + wide], &in[r * stride + wide] + width);
          sequences[s].v.insert(sequences[s].v.end(), &in[r * stride + wide + width], &in[r * stride + wide + width] + width);
        }
        sequences[s].length += step[s];
      }
      for (int p = 0; p < 3; p++) kv_store(c, 1, rows.data(), n, &in[wide], &in[wide + width], static_cast<int>(stride), p, 3);
      const int parts = 1 + static_cast<int>(rng() % 5);
      for (int p = 0; p < parts; p++) attend(c, 1, rows.data(), n, in.data(), static_cast<int>(stride), out.data(), p, parts);
      for (size_t i = 0; i < rows.size(); i++) {
        const Sequence* s = nullptr;
        for (const Sequence& q : sequences) s = q.kv == rows[i].kv ? &q : s;
        for (size_t h = 0; h < static_cast<size_t>(c.heads); h++) {
          const size_t from = h / static_cast<size_t>(c.heads / c.kv_heads) * dim;
          std::vector<double> sum(dim);
          double total = 0;
          for (size_t p = 0; p <= static_cast<size_t>(rows[i].pos); p++) {
            double dot = 0;
            for (size_t d = 0; d < dim; d++) dot += static_cast<double>(in[i * stride + h * dim + d]) * static_cast<double>(s->k[p * width + from + d]);
            const double weight = std::exp(dot / std::sqrt(static_cast<double>(dim)));
            total += weight;
            for (size_t d = 0; d < dim; d++) sum[d] += weight * static_cast<double>(s->v[p * width + from + d]);
          }
          for (size_t d = 0; d < dim; d++) {
            const double error = std::fabs(sum[d] / total - static_cast<double>(out[i * wide + h * dim + d]));
            worst = std::isnan(error) ? INFINITY : std::max(worst, error);
          }
        }
      }
    }
    for (Sequence& s : sequences) kv_free(s.kv);
  }
  std::printf("{\"worst\":%.3g}\n", worst);
  return worst <= std::atof(argv[2]) ? 0 : 1;
}
