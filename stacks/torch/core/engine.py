"""One thread computes: each step takes the next tokens of every running sequence through the model, and draws what follows them."""

import math
import queue
import random
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

#: Sequences that have a cache at once, one that is only scored among them; the rest wait in order.
MAX_RUNNING = 64
#: Prompt tokens of one step, so that a long prompt holds nobody up for long and attention's scores stay small.
CHUNK = 512
#: Sampled tokens are drawn on the host from this many most likely ones at most for `logprobs`.
MAX_TOP = 20


class Request:
    """What to generate, and where it goes: `emit((token, logprobs, finish))` on the engine's thread, or `emit(error)`. An end token is emitted as None."""

    def __init__(self, prompt: Sequence[int], emit: Callable[[Any], None]) -> None:
        self.prompt, self.emit = list(prompt), emit
        self.max_tokens, self.ignore_eos = 16, False
        self.temperature, self.top_p = 1.0, 1.0
        self.logprobs: Optional[int] = None
        self.random: random.Random = random.SystemRandom()
        self.cancelled = False
        self.pending: List[int] = list(prompt)
        self.made = 0
        self.cache: Any = None


class Engine:
    def __init__(self, load: Callable[[], Any], eos: set) -> None:
        """Loads the model on the engine's own thread, since some frameworks bind what they make to it, and waits. Raises what `load` raises."""
        self.backend: Any = None
        self.eos = eos
        self.incoming: "queue.Queue[Any]" = queue.Queue()
        self.running: List[Request] = []
        loaded: "queue.Queue[Optional[Exception]]" = queue.Queue()
        threading.Thread(target=self._run, args=(load, loaded), daemon=True).start()
        error = loaded.get()
        if error is not None:
            raise error

    def submit(self, request: Request) -> None:
        self.incoming.put(request)

    def score(self, sequences: List[List[int]], query: List[List[List[int]]], done: Callable[[Any], None]) -> None:
        """Log-probabilities of query[i][j] after tokens 0…j of sequence i; `done` gets them, or the exception."""
        self.incoming.put((sequences, query, done))

    def _run(self, load: Callable[[], Any], loaded: "queue.Queue[Optional[Exception]]") -> None:
        try:
            self.backend = load()
        except Exception as error:  # noqa: BLE001  it is raised where the engine was asked for
            return loaded.put(error)
        loaded.put(None)
        return self._loop()

    def _loop(self) -> None:
        waiting: List[Any] = []
        while True:
            while not self.incoming.empty() or not (waiting or self.running):
                waiting.append(self.incoming.get())
            waiting = [job for job in waiting if not (isinstance(job, Request) and job.cancelled)]
            self._let_go([r for r in self.running if r.cancelled])
            while waiting and len(self.running) < MAX_RUNNING:
                job = waiting.pop(0)
                if isinstance(job, Request):
                    self.running.append(job)
                else:
                    self._score(*job)
            try:
                self._step()
            except Exception as error:  # noqa: BLE001  one step's failure (no memory left) ends its requests, not the server
                for r in self._let_go(self.running):
                    r.emit(told(error))

    def _let_go(self, gone: List[Request]) -> List[Request]:
        """Their caches are free from now on, whoever still reads their answers."""
        for r in gone:
            r.cache = None
        self.running = [r for r in self.running if r not in gone]
        return gone

    def _step(self) -> None:
        parts, rows, room = [], [], CHUNK
        for r in self.running:
            if r.cache is None:
                r.cache = self.backend.new_cache()
            take = min(len(r.pending), max(1, room) if r.made == 0 else 1)
            if r.made == 0 and room <= 0:
                continue
            room -= take if r.made == 0 else 0
            tokens, r.pending = r.pending[:take], r.pending[take:]
            last = not r.pending
            parts.append((tokens, r.cache, 1 if last else 0))
            if last:
                rows.append(r)
        if not parts:
            return
        logits = self.backend.forward(parts)
        if rows:
            self._draw(rows, logits)

    def _draw(self, rows: List[Request], logits: Any) -> None:
        greedy = self.backend.argmax(logits)
        on_host: Dict[int, np.ndarray] = {}
        wanted = [i for i, r in enumerate(rows) if r.temperature > 0 or r.logprobs is not None]
        if wanted:
            on_host = dict(zip(wanted, self.backend.logprobs(logits, wanted)))
        for i, r in enumerate(rows):
            token = sample(on_host[i], r) if r.temperature > 0 else greedy[i]
            r.made += 1
            r.pending = [token]
            if token in self.eos and not r.ignore_eos:
                r.emit((None, None, "stop"))
                r.cancelled = True
            else:
                full = r.made == r.max_tokens
                # Its client may have hung up during the step: that stays.
                r.cancelled = r.cancelled or full
                said = top(on_host[i], token, r.logprobs) if r.logprobs is not None else None
                r.emit((token, said, "length" if full else None))

    def _score(self, sequences: List[List[int]], query: List[List[List[int]]], done: Callable[[Any], None]) -> None:
        try:
            answer = []
            for ids, asked in zip(sequences, query):
                cache, rows = self.backend.new_cache(), []
                for at in range(0, len(ids), CHUNK // 2):
                    tokens = ids[at : at + CHUNK // 2]
                    logits = self.backend.forward([(tokens, cache, len(tokens))])
                    wanted = [i for i in range(len(tokens)) if asked[at + i]]
                    values = dict(zip(wanted, self.backend.logprobs(logits, wanted))) if wanted else {}
                    rows += [[float(values[i][m]) for m in asked[at + i]] if i in values else [] for i in range(len(tokens))]
                answer.append(rows)
                # Before the next one has its own: two would be one too many.
                cache = None
            done(answer)
        except Exception as error:  # noqa: BLE001  it is answered
            done(told(error))


def told(error: Exception) -> Exception:
    """What it says. The error itself keeps the frames of the step that failed, and with them its tensors, for as long as somebody has it."""
    return RuntimeError(str(error) or type(error).__name__)


def sample(logprobs: np.ndarray, r: Request) -> int:
    """A token from the nucleus: the most likely ones that together first reach top_p; at least one."""
    scaled = logprobs.astype(np.float64) / r.temperature
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")
    cumulative = np.cumsum(weights[order])
    kept = max(1, int(np.searchsorted(cumulative - weights[order], r.top_p, side="left")))
    point = r.random.random() * float(cumulative[kept - 1])
    return int(order[min(kept - 1, int(np.searchsorted(cumulative[:kept], point, side="right")))])


def top(logprobs: np.ndarray, token: int, count: int) -> dict:
    ids = np.argsort(-logprobs, kind="stable")[: min(count, MAX_TOP)]
    finite = lambda value: float(value) if math.isfinite(value) else -1e9  # noqa: E731
    return {"logprob": finite(logprobs[token]), "top": {int(i): finite(logprobs[i]) for i in ids}}
