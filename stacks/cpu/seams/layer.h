// Seam `layer`: the transformer's body, from tokens to normed hidden states. Packs its own weights.
#pragma once
#include "../core/model.h"
#include "attention.h"

struct Body;

Body* body_load(const Gguf& file, const Config& c);
// Runs rows (1 … max_rows) through all layers, stores their K and V, and writes the hidden state after the last norm of the rows
// whose indices are in want[0..wants) to hidden [wants][dim]. Only the scheduler's thread calls it.
void body_forward(Body& b, const Row* rows, int n, const int* want, int wants, float* hidden);
int body_max_rows();
