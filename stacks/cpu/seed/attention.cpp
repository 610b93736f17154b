// Seed: keys and values as float32, position by position; one query head at a time.
#include "../seams/attention.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

struct KvCache {
  size_t layer;  // floats of one layer
  std::unique_ptr<float[]> k, v;  // [layers][capacity][kv_heads * head_dim], not cleared: a page costs memory once it is written
};

KvCache* kv_new(const Config& c, int capacity) {
  const size_t layer = size_t(capacity) * c.kv_heads * c.head_dim;
  return new KvCache{layer, std::unique_ptr<float[]>(new float[layer * c.layers]), std::unique_ptr<float[]>(new float[layer * c.layers])};
}

void kv_free(KvCache* kv) { delete kv; }

void kv_store(const Config& c, int layer, const Row* rows, int n, const float* k, const float* v, int stride, int part, int parts) {
  const int width = c.kv_heads * c.head_dim;
  for (int r = part; r < n; r += parts) {
    const size_t to = rows[r].kv->layer * layer + size_t(rows[r].pos) * width;
    std::memcpy(&rows[r].kv->k[to], k + size_t(r) * stride, width * sizeof(float));
    std::memcpy(&rows[r].kv->v[to], v + size_t(r) * stride, width * sizeof(float));
  }
}

void attend(const Config& c, int layer, const Row* rows, int n, const float* q, int stride, float* out, int part, int parts) {
  const int dim = c.head_dim, width = c.kv_heads * dim;
  std::vector<float> weights;
  for (int item = part; item < n * c.heads; item += parts) {
    const int r = item / c.heads, head = item % c.heads, positions = rows[r].pos + 1;
    const size_t from = rows[r].kv->layer * layer + size_t(head / (c.heads / c.kv_heads)) * dim;
    const float *query = q + size_t(r) * stride + head * dim, *keys = &rows[r].kv->k[from], *values = &rows[r].kv->v[from];
    float* sum = out + size_t(r) * c.heads * dim + head * dim;
    weights.resize(positions);
    for (int p = 0; p < positions; ++p) {
      float dot = 0;
      for (int i = 0; i < dim; ++i) dot += query[i] * keys[size_t(p) * width + i];
      weights[p] = dot / std::sqrt(float(dim));
    }
    const float most = *std::max_element(weights.begin(), weights.end());
    float total = 0;
    for (float& w : weights) total += w = std::exp(w - most);
    std::fill(sum, sum + dim, 0.0f);
    for (int p = 0; p < positions; ++p) {
      for (int i = 0; i < dim; ++i) sum[i] += weights[p] / total * values[size_t(p) * width + i];
    }
  }
}
