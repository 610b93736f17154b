// What q4-int8.cpp and its kernels share: prepared activations, and the table of one vector family's kernels.
#pragma once
#include <cstddef>
#include <cstdint>

// Activations made ready.
struct Quantised {
  int16_t* words;  // [rows][k]
  float* sums;     // [rows][k / 32]: sum of each block's words
  float* scales;   // [rows]: value of one unit
};

struct Kernels {
  int width;               // outputs of a panel
  int q4_block, q8_block;  // bytes of a block of a panel
  void (*q4)(const uint8_t* panels, size_t count, size_t k, const Quantised& x, size_t rows, float* y, size_t ldy);
  void (*q8)(const uint8_t* panels, size_t count, size_t k, const Quantised& x, size_t rows, float* y, size_t ldy);
  void (*quantise_row)(const float* x, size_t k, int16_t* q, float* sums, float* s);
};
