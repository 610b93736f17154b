// From logits to tokens and log-probabilities: for every binding of the seam `head`.
#pragma once
#include "engine.h"

int argmax(const float* logits, int n);              // ties go to the lower id
double log_sum_exp(const float* logits, int n);      // logits[i] - log_sum_exp(…) is the log-probability of i
int sample(const float* logits, int n, Sampling& s); // temperature 0: argmax; else one draw, from the top_p nucleus when top_p < 1
void fill_pick(const float* logits, int n, Pick& p); // everything that the pick asks of one row
