"""CUDA graphs of steps of one token a sequence, over the cache in slots.

A graph is of so many slots (0, 1, 2, …) and so many positions. Slots that are not of the step compute too: what they write lies where their own next token
goes, or where nobody reads.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch

from core.batch import Part
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


class Captured(NamedTuple):
    """A graph knows addresses, not tensors: `batch`, whose tensors it reads, must live as long as it does."""

    graph: Any
    batch: Fixed
    logits: torch.Tensor
    greedy: torch.Tensor


def graphs_of(model: Any) -> "Optional[Graphs]":
    """None where the device is no CUDA device. Raises ValueError where the model is on several: nobody has tried yet whether their sums can be captured."""
    if model.devices > 1:
        raise ValueError(f"steps over {model.devices} devices can't be captured as CUDA graphs; bind another scheduler, or serve on one device")
    return Graphs(model) if model.device.type == "cuda" else None


class Graphs:
    """Captures on the current device; only where it is a CUDA device."""

    def __init__(self, model: Any) -> None:
        self.device, self.layer, self.head, self.attention = model.device, model.layer, model.head, model.attention
        self.graphs: Dict[Tuple[int, int], Captured] = {}
        self.generation = -1
        self.inputs = torch.zeros(2, ROWS[-1], dtype=torch.long, device=self.device)
        self.host = torch.zeros(2, ROWS[-1], dtype=torch.long).pin_memory()
        self.pool: Any = None
        with torch.no_grad():
            for rows, length in reversed(AT_START):
                self._graph(rows, length)

    def fitting(self, one: List[Part]) -> Optional[Tuple[int, int]]:
        """(rows, positions) of the smallest graph for these sequences; None where none fits."""
        needed = max((p.cache.index for p in one), default=0) + 1
        rows = next((n for n in ROWS if n >= needed), None)
        length = bucket(max((p.cache.length for p in one), default=0))
        room = self.attention.kv.shape
        # A sequence whose places are all taken has none left that a slot which is not of the step could write to.
        full = any(slot.length >= room[4] for slot in self.attention.taken.values())
        return (rows, length) if one and rows is not None and rows <= room[2] and length <= room[4] and not full else None

    def replay(self, size: Tuple[int, int], one: Optional[List[Part]]) -> Tuple[torch.Tensor, torch.Tensor]:
        """
        Logits and likeliest tokens of the slots 0 … rows, until the next replay. None: the tokens are already in `inputs`. Whoever gives tokens has waited for
        the last step that got some, so nothing reads `host` any more.
        """
        captured = self._graph(*size)
        if one is not None:
            self._fill(one, size[0])
        captured.graph.replay()
        return captured.logits, captured.greedy

    def _fill(self, one: List[Part], rows: int) -> None:
        self.host[:, :rows] = 0
        for index, slot in list(self.attention.taken.items()):
            if index < rows:
                self.host[1, index] = slot.length
        for part in one:
            self.host[0, part.cache.index] = part.tokens[0]
        self.inputs[:, :rows].copy_(self.host[:, :rows], non_blocking=True)

    def _graph(self, rows: int, length: int) -> Captured:
        if self.generation != self.attention.generation:
            # The cache is another tensor: what was captured reads the old one.
            self.graphs, self.pool, self.generation = {}, None, self.attention.generation
        found = self.graphs.get((rows, length))
        if found is None:
            kept = self.inputs.clone()
            found = self.graphs[rows, length] = self._capture(Fixed(self.inputs, rows, length))
            self.inputs.copy_(kept)
        return found

    def _capture(self, batch: Fixed) -> Captured:
        # It writes at positions that the inputs name: none that a sequence has filled.
        self._fill([], len(batch.ids))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.head(self.layer(batch))
        torch.cuda.current_stream().wait_stream(stream)
        # Capturing takes longer than the warm-up's copy from `host`, which may be written to again after it.
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            logits = self.head(self.layer(batch))
            greedy = logits.argmax(dim=-1)
        self.pool = self.pool or graph.pool()
        return Captured(graph, batch, logits, greedy)


def is_one(part: Part) -> bool:
    return len(part.tokens) == 1 and part.wanted == 1


def of_slots(one: List[Part], values: torch.Tensor) -> torch.Tensor:
    """Rows of these sequences, in their order, of a value a slot."""
    slots = [part.cache.index for part in one]
    return values[: len(slots)] if slots == list(range(len(slots))) else values[torch.tensor(slots, device=values.device)]


def in_order(parts: List[Part], one: Tuple[torch.Tensor, torch.Tensor], others: Tuple[torch.Tensor, torch.Tensor]) -> Tuple[torch.Tensor, torch.Tensor]:
    """Rows of both kinds as the parts stand."""
    at, order, behind = 0, [], len(one[1])
    for part in parts:
        if is_one(part):
            order.append(at)
            at += 1
        else:
            order += range(behind, behind + part.wanted)
            behind += part.wanted
    taken = torch.tensor(order, dtype=torch.long, device=one[0].device)
    return torch.cat([one[0], others[0]])[taken], torch.cat([one[1], others[1]])[taken]
