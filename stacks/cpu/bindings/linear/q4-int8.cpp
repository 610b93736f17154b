// flags:
// Seam `linear`: weights stay as they are in the file (4-bit with scale and minimum, or 8-bit with scale), repacked so that one vector holds
// W outputs. Activations become 16-bit integers with one scale a row. (8 bits a block of 32, as llama.cpp does, would be 1.6 times as fast
// with vpmaddubsw, but costs a KL of 3e-3 on SmolLM2: its activations have outliers.) F16 and F32 tensors are requantised to 8 bits.
#include "block-families.h"
#include "packed-linear.h"
