// Compares two files of log-probabilities (logits.cpp). Usage: divergence REFERENCE OTHER VOCABULARY.
// Prints one line of JSON: mean and p99.9 KL(reference || other), top-1 agreement, positions.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  FILE* a = std::fopen(argv[1], "rb");
  FILE* b = std::fopen(argv[2], "rb");
  if (a == nullptr || b == nullptr) return 2;
  const size_t n = static_cast<size_t>(std::atoi(argv[3]));
  std::vector<float> p(n), q(n);
  std::vector<double> kl;
  size_t same = 0;
  while (std::fread(p.data(), 4, n, a) == n && std::fread(q.data(), 4, n, b) == n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += std::exp(static_cast<double>(p[i])) * (static_cast<double>(p[i]) - static_cast<double>(q[i]));
    kl.push_back(sum);
    same += std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin();
  }
  if (kl.empty()) return 1;
  double mean = 0;
  for (const double v : kl) mean += v / static_cast<double>(kl.size());
  std::sort(kl.begin(), kl.end());
  std::printf("{\"positions\":%zu,\"mean_kl\":%.3g,\"p999_kl\":%.3g,\"top1\":%.4f}\n", kl.size(), mean,
              kl[static_cast<size_t>(0.999 * static_cast<double>(kl.size() - 1))], static_cast<double>(same) / static_cast<double>(kl.size()));
}
