"""python3 graph-history.py STACK MODEL SCHEDULER SEED: a random history of steps by a scheduler with graphs and by the same stack without any; each step must answer
the same. Prints one JSON line of what occurred.

A graph is stood in for at its protocol, since no processor has any: a replay computes from the tensors that were there at the capture (the cache of that time among
them) and spoils what other graphs answered, as graphs that share a pool may.
"""

import json
import random
import sys
from typing import Any, List

sys.path.insert(0, sys.argv[1])

import torch  # noqa: E402


class Event:
    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


torch.Tensor.pin_memory = lambda self: self
torch.cuda.Event = Event
torch.cuda.current_stream = lambda: Event()

import bound.lib_graphs as lib  # noqa: E402
from core.backend import Backend  # noqa: E402

module = __import__(f"bound.{sys.argv[3]}", fromlist=["x"])
answers: List[torch.Tensor] = []
counts = {"steps": 0, "replays": 0, "captures": 0, "ahead": 0, "failed": 0, "generations": 0, "sampled": 0}


class Graph:
    def __init__(self, run: Any) -> None:
        self.replay = run


def capture(self: lib.Graphs, batch: lib.Fixed) -> lib.Captured:
    if random.random() < FAILURES:
        raise MemoryError("no memory for a graph")
    counts["captures"] += 1
    self._fill([], len(batch.ids))
    kv, attention = self.attention.kv, self.attention
    logits = self.head(self.layer(batch)).clone()
    greedy = logits.argmax(-1)

    def replay() -> None:
        counts["replays"] += 1
        now, attention.kv = attention.kv, kv
        made = self.head(self.layer(batch))
        attention.kv = now
        for other in answers:
            other.fill_(0)
        logits.copy_(made)
        greedy.copy_(made.argmax(-1))

    answers.extend([logits, greedy])
    return lib.Captured(Graph(replay), batch, logits, greedy)


lib.Graphs._capture = capture
random.seed(int(sys.argv[4]))
FAILURES = 0.0
plain, graphed = Backend(sys.argv[2], 1), Backend(sys.argv[2], 1)
graphed.scheduler.graphs = lib.Graphs(graphed)
if hasattr(module, "Ahead"):
    asked = module.Ahead.serves

    def serves(self: Any, one: Any) -> bool:
        found = asked(self, one)
        counts["ahead"] += found
        return found

    module.Ahead.serves = serves

COMES, WAITS, LEAVES = random.random() * 0.5, random.random() * 0.2, random.random() * 0.04
context = plain.shape.context


class Sequence:
    """Of both backends; `most`: tokens that it may hold."""

    def __init__(self, prompt: int, most: int) -> None:
        self.caches = (graphed.new_cache(), plain.new_cache())
        self.pending, self.most = [random.randrange(3, 260) for _ in range(prompt)], most


def step(who: List[Sequence]) -> bool:
    """Whether all went well."""
    parts: List[List[Any]] = [[], []]
    for s in who:
        take = len(s.pending) if random.random() < CHUNKS else max(1, len(s.pending) // 2)
        tokens, s.pending = s.pending[:take], s.pending[take:]
        for side, cache in zip(parts, s.caches):
            side.append((tokens, cache, 0 if s.pending else 1))
    if not who:
        return True
    counts["steps"] += 1
    try:
        logits = graphed.forward(parts[0])
        # A sampled token, or one with log-probabilities, reads the logits before the tokens.
        told = graphed.logprobs(logits, [0]) if len(logits) and random.random() < 0.3 else None
        greedy = graphed.argmax(logits)
    except MemoryError:
        counts["failed"] += 1
        return False
    expected = plain.forward(parts[1])
    likeliest = plain.argmax(expected)
    assert logits.shape == expected.shape, (logits.shape, expected.shape)
    assert [s.caches[0].length for s in who] == [s.caches[1].length for s in who]
    if len(logits):
        difference = (logits - expected).abs().max().item()
        assert difference < 1e-4, f"step {counts['steps']}: logits differ by {difference}"
    if told is not None:
        assert abs(told[0].max() - torch.log_softmax(expected[0], -1).max().item()) < 1e-4
    assert greedy == likeliest, f"step {counts['steps']}: {greedy} for {likeliest}"
    ends = iter(likeliest)
    for s in who:
        if not s.pending:
            token = next(ends)
            s.pending = [token if random.random() < 0.98 else 7]
    return True


# One that fills the cache to its last place waits, while another goes on.
live, CHUNKS = [Sequence(512, 600), Sequence(5, 40)], 1.0
for who in (live, live[1:], live[1:], live):
    assert step(who)
del who

FAILURES, CHUNKS = 0.2, 0.7
for _ in range(300):
    if len(live) < 20 and random.random() < COMES:
        prompt = random.choice([1, 2, 5, 30, 200, 505, 700, context - 40])
        live.append(Sequence(prompt, random.choice([min(context, prompt + more) for more in (3, 20, 400)])))
    if random.random() < 0.05:
        scored = [([5] * random.choice([1, 3, 256]), b) for b in (graphed, plain)]
        for tokens, backend in scored:
            try:
                backend.forward([(tokens, backend.new_cache(), len(tokens))])
            except MemoryError:
                counts["failed"] += 1
    if not step([s for s in live if random.random() >= WAITS]):
        # As the engine does after a step that failed.
        live = []
    # The last token is told and never fed.
    live = [s for s in live if s.caches[0].length + len(s.pending) < s.most and random.random() > LEAVES]
# Where tokens are sampled, steps ahead are for nothing: they must not double the device's work.
FAILURES, live, alone = 0.0, [], Sequence(3, 200)
for n in range(128):
    at = counts["replays"]
    parts = [(alone.pending, alone.caches[0], 1)]
    alone.pending = [(graphed.argmax(graphed.forward(parts))[0] + 1) % 260]
    counts["sampled"] += counts["replays"] - at
assert counts["sampled"] < 1.2 * 128, f"{counts['sampled']} replays for 128 sampled tokens"
del alone, parts
counts["generations"] = graphed.attention.generation
assert len(graphed.attention.taken) == len(live)
print(json.dumps(counts))
