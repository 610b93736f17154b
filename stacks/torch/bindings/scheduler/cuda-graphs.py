"""Steps of one token a sequence are replayed as CUDA graphs; prompts, and steps that no graph fits, are launched one by one. Needs the cache in slots.

A graph is of so many slots (0, 1, 2, …) and so many positions. Slots that are not of the step compute too: what they write lies where their own next token
goes, or where nobody reads.
"""

from typing import Any, Dict, List, Tuple

import torch

from core.batch import Batch, Part
from bound.attention_slots import bucket

ROWS = (1, 2, 4, 8, 16, 32, 64)
#: Captured before the first request; others when they are first needed, some 0.1 s each.
AT_START = [(rows, length) for length in (128, 256) for rows in ROWS[:5]]


class Fixed:
    """What a captured step reads: tensors whose addresses stay. Without parts: one token of each slot."""

    parts = None

    def __init__(self, inputs: torch.Tensor, rows: int, length: int) -> None:
        self.ids, self.positions = inputs[0, :rows], inputs[1, :rows]
        self.rows = torch.arange(rows, device=inputs.device)
        self.length = length


class Scheduler:
    def __init__(self, model: Any) -> None:
        self.device, self.layer, self.head, self.attention = model.device, model.layer, model.head, model.attention
        self.graphs: Dict[Tuple[int, int], Tuple[Any, torch.Tensor, torch.Tensor]] = {}
        self.generation = -1
        if self.device.type != "cuda":
            return
        self.inputs = torch.zeros(2, ROWS[-1], dtype=torch.long, device=self.device)
        self.host = torch.zeros(2, ROWS[-1], dtype=torch.long).pin_memory()
        self.pool: Any = None
        with torch.no_grad():
            for rows, length in reversed(AT_START):
                self._graph(rows, length)

    def step(self, parts: List[Part]) -> Tuple[torch.Tensor, torch.Tensor]:
        one = [p for p in parts if len(p.tokens) == 1 and p.wanted == 1]
        needed = max((p.cache.index for p in one), default=0) + 1
        rows = next((n for n in ROWS if n >= needed), None)
        length = bucket(max((p.cache.length for p in one), default=0))
        if self.device.type != "cuda" or not one or rows is None or rows > self.attention.kv.shape[2] or length > self.attention.kv.shape[4]:
            return self._launch(parts)
        graph, logits, greedy = self._graph(rows, length)
        self._fill(one, rows)
        graph.replay()
        for part in one:
            part.cache.length += 1
        slots = [p.cache.index for p in one]
        if slots != list(range(len(slots))):
            taken = torch.tensor(slots, device=self.device)
            logits, greedy = logits[taken], greedy[taken]
        else:
            logits, greedy = logits[: len(slots)], greedy[: len(slots)]
        if len(one) == len(parts):
            return logits, greedy
        others = [p for p in parts if not (len(p.tokens) == 1 and p.wanted == 1)]
        return in_order(parts, (logits, greedy), self._launch(others))

    def _launch(self, parts: List[Part]) -> Tuple[torch.Tensor, torch.Tensor]:
        batch = Batch(parts, self.device)
        logits = self.head(self.layer(batch))
        batch.advance()
        return logits, logits.argmax(dim=-1)

    def _fill(self, one: List[Part], rows: int) -> None:
        """The last step was waited for, so nothing reads `host` any more."""
        self.host[:, :rows] = 0
        for index, slot in list(self.attention.taken.items()):
            if index < rows:
                self.host[1, index] = min(slot.length, self.attention.kv.shape[4] - 1)
        for part in one:
            self.host[0, part.cache.index] = part.tokens[0]
        self.inputs[:, :rows].copy_(self.host[:, :rows], non_blocking=True)

    def _graph(self, rows: int, length: int) -> Tuple[Any, torch.Tensor, torch.Tensor]:
        if self.generation != self.attention.generation:
            # The cache is another tensor: what was captured reads the old one.
            self.graphs, self.generation = {}, self.attention.generation
        found = self.graphs.get((rows, length))
        if found is None:
            found = self.graphs[rows, length] = self._capture(Fixed(self.inputs, rows, length))
        return found

    def _capture(self, batch: Fixed) -> Tuple[Any, torch.Tensor, torch.Tensor]:
        # It writes at positions that the inputs name: none that a sequence has filled.
        self._fill([], len(batch.ids))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.head(self.layer(batch))
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            logits = self.head(self.layer(batch))
            greedy = logits.argmax(dim=-1)
        self.pool = self.pool or graph.pool()
        return graph, logits, greedy


def in_order(parts: List[Part], one: Tuple[torch.Tensor, torch.Tensor], others: Tuple[torch.Tensor, torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
    """Rows of both kinds as the parts stand."""
    at, order, behind = 0, [], len(one[1])
    for part in parts:
        if len(part.tokens) == 1 and part.wanted == 1:
            order.append(at)
            at += 1
        else:
            order += range(behind, behind + part.wanted)
            behind += part.wanted
    taken = torch.tensor(order, dtype=torch.long, device=one[0].device)
    return torch.cat([one[0], others[0]])[taken], torch.cat([one[1], others[1]])[taken]
