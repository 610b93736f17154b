// Seam `threading`: how one step's work is spread over the cores that the stack was given.
#pragma once
#include <utility>

// Number of parts that really run at the same time. The seed answers 1.
int threads();
// Called once, before any other function here, with the list from --cpus ("0,1").
void threads_start(const char* cpus);
// Calls fn(ctx, part, parts) once for every part in [0, threads()), at the same time, and returns when all are done.
// Not reentrant. Only the scheduler's thread calls it. Part 0 runs on the caller.
void parallel_raw(void (*fn)(void* ctx, int part, int parts), void* ctx);
// Inside parallel(): no part goes on before every part has come here.
void barrier();

template <class F>
void parallel(F&& body) {
  parallel_raw([](void* ctx, int part, int parts) { (*static_cast<std::remove_reference_t<F>*>(ctx))(part, parts); }, &body);
}
