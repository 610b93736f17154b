// Seam `linear`: the weight format in memory and the matrix product that reads it.
#pragma once
#include <cstddef>
#include <span>
#include "../core/gguf.h"
#include "threading.h"

struct Weight;  // the binding's own layout

// Packs the rows of the given tensors one below the other: linear_pack({&q, &k, &v}) is a fused QKV. All have the same K.
Weight* linear_pack(std::span<const Tensor* const> tensors);
int linear_outputs(const Weight& w);  // N
int linear_inputs(const Weight& w);   // K

// Bytes that `prepare` needs for `rows` rows of activations (0 when it needs nothing).
size_t linear_scratch(const Weight& w, int rows);
// Inside parallel(): makes the activations ready (for example, quantises them). x is [rows][K].
// A part reads no other rows than [rows * part / parts, rows * (part + 1) / parts), so a caller that wrote those needs no barrier before.
// The caller puts a barrier() between prepare and compute. Two weights with the same K may share one prepared scratch.
void linear_prepare(const Weight& w, const float* x, int rows, void* scratch, int part, int parts);
// The contiguous range of outputs [first, last) that compute(…, part, parts) writes. parts may be far more than threads().
struct Range { int first, last; };
Range linear_range(const Weight& w, int part, int parts);
// y[r][n] = sum over k of W[n][k] * x[r][k], for r < rows and n in linear_range(w, part, parts); y is [rows][N].
void linear_compute(const Weight& w, const float* x, const void* scratch, int rows, float* y, int part, int parts);
