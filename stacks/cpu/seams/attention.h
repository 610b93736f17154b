// Seam `attention`: the layout of the KV cache and the attention that reads it.
#pragma once
#include "../core/model.h"

struct KvCache;  // keys and values of one sequence, all layers; the binding's own layout

KvCache* kv_new(const Config& c, int capacity);  // capacity in positions
void kv_free(KvCache* kv);

// One row of a step: one token of one sequence. Rows of the same sequence stand side by side in rising position.
struct Row {
  int token;
  int pos;
  KvCache* kv;
};

// Inside parallel(). k, v: [n][kv_heads * head_dim], k already rotated. Writes each row at its position (over what was there).
void kv_store(const Config& c, int layer, const Row* rows, int n, const float* k, const float* v, int stride, int part, int parts);
// Inside parallel(), after a barrier. q: rotated queries, row r at q + r * stride, [heads * head_dim];
// out: [n][heads * head_dim]. Row r attends to positions 0..pos of its own sequence; softmax scale 1/sqrt(head_dim).
void attend(const Config& c, int layer, const Row* rows, int n, const float* q, int stride, float* out, int part, int parts);
