"""python3 places.py STACK: the most caches that were alive at once while 64 requests ran and two sequences were scored beside them, then the scores."""

import queue
import sys
import time
import weakref

import numpy as np

sys.path.insert(0, sys.argv[1])
from core.engine import Engine, Request  # noqa: E402


class Cache:
    pass


class Backend:
    """The model by its interface: counts what it has given out."""

    def __init__(self) -> None:
        self.alive: "weakref.WeakSet[Cache]" = weakref.WeakSet()
        self.most = 0

    def new_cache(self) -> Cache:
        cache = Cache()
        self.alive.add(cache)
        self.most = max(self.most, len(self.alive))
        return cache

    def forward(self, parts: list) -> np.ndarray:
        return np.zeros((sum(wanted for _, _, wanted in parts), 4), dtype=np.float32)

    def argmax(self, logits: np.ndarray) -> list:
        return [1] * len(logits)

    def logprobs(self, logits: np.ndarray, rows: list) -> np.ndarray:
        return logits[rows]


backend = Backend()
engine = Engine(lambda: backend, set())
answers: "queue.Queue" = queue.Queue()
for i in range(64):
    request = Request([1, 2], answers.put)
    request.max_tokens, request.temperature, request.ignore_eos = 2000 if i else 1000, 0.0, True
    engine.submit(request)
while backend.most < 64:
    time.sleep(0.001)
engine.score([[1, 2, 3], [1, 2]], [[[], [], [1]], [[], [2]]], lambda result: answers.put(("scored", result)))
while True:
    said = answers.get(timeout=60)
    if isinstance(said, tuple) and said[0] == "scored":
        break
print(backend.most, said[1])
