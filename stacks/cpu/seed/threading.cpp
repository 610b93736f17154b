// Seed: everything runs on the scheduler's own thread.
#include "../seams/threading.h"

int threads() { return 1; }
void threads_start(const char*) {}
void parallel_raw(void (*fn)(void* ctx, int part, int parts), void* ctx) { fn(ctx, 0, 1); }
void barrier() {}
