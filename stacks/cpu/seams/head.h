// Seam `head`: hidden states to tokens. Owns the output matrix and the sampler.
#pragma once
#include <span>
#include "../core/engine.h"

struct Head;

Head* head_load(const Gguf& file, const Config& c);
// Fills the outputs of picks[0..n) from hidden [n][dim]. Greedy is the argmax, ties to the lower id.
// Log-probabilities are of the model's own distribution (temperature 1, no top_p). Only the scheduler's thread calls it.
void head_pick(Head& h, const float* hidden, int n, Pick* picks);
