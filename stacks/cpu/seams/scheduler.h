// Seam `scheduler`: which sequences' rows make up the next step.
#pragma once
#include "head.h"
#include "layer.h"

// Serves requests from the queue until it is closed. Runs in a thread of its own; the only caller of body_* , head_* and parallel().
// A request that scores (request.score) goes through the same prefill as any other: there is no second path.
void scheduler_run(Queue& queue, Body& body, Head& head, const Config& c);
