"""CUDA graphs, one step ahead: while the host hands out the tokens of a step, the device computes the next one from the likeliest of them. Where the host then
asks for another token (a sampled one), or for a sequence that was not in the step, what was computed ahead is thrown away and nothing is lost but its time: a step's,
so where that happens again and again, it is tried less and less.
"""

# needs: ../lib/graphs.py
from typing import Any, Dict, List, Optional, Tuple

import torch

from bound.lib_graphs import ROWS, graphs_of, in_order, is_one, of_slots
from core.batch import Part

#: Steps. Sampled requests come and go; a wasted step in so many costs 2 %.
LONGEST_WAIT = 63


class Tokens:
    """Likeliest tokens of a step's slots, on their way to the host."""

    def __init__(self, greedy: torch.Tensor, host: torch.Tensor) -> None:
        self.host = host[: len(greedy)]
        self.host.copy_(greedy, non_blocking=True)
        self.arrived = torch.cuda.Event()
        self.arrived.record()

    def of(self, one: List[Part]) -> "OfParts":
        return OfParts(self, [part.cache.index for part in one])

    def wait(self) -> List[int]:
        self.arrived.synchronize()
        return self.host.tolist()


class OfParts:
    """Stands for the tensor of a step's likeliest tokens; waited for when it is read."""

    def __init__(self, tokens: Tokens, slots: List[int]) -> None:
        self.tokens, self.slots = tokens, slots

    def tolist(self) -> List[int]:
        made = self.tokens.wait()
        return [made[slot] for slot in self.slots]


class Ahead:
    """A step that was begun before it was asked for: the graph's outputs, and by slot the position that its token stands at."""

    def __init__(self, outputs: Tuple[torch.Tensor, torch.Tensor], from_tokens: Tokens, positions: Dict[int, int]) -> None:
        self.outputs, self.from_tokens, self.positions = outputs, from_tokens, positions

    def serves(self, one: List[Part]) -> bool:
        made = self.from_tokens.wait()
        return all(self.positions.get(p.cache.index) == p.cache.length and made[p.cache.index] == p.tokens[0] for p in one)


class Scheduler:
    def __init__(self, model: Any) -> None:
        self.launch, self.attention = model.launch, model.attention
        self.graphs = graphs_of(model)
        self.context = model.shape.context
        self.ahead: Optional[Ahead] = None
        #: Steps until the next one is begun ahead, and how many those were after the last one that was for nothing.
        self.waits, self.waited = 0, 0
        self.hosts = [torch.zeros(ROWS[-1], dtype=torch.long) for _ in range(2)]
        if self.graphs:
            self.hosts = [host.pin_memory() for host in self.hosts]

    def step(self, parts: List[Part]) -> Tuple[torch.Tensor, Any]:
        one = [p for p in parts if is_one(p)]
        size = self.graphs.fitting(one) if self.graphs else None
        ahead, self.ahead = self.ahead, None
        if size is None:
            return self.launch(parts)
        if ahead is not None and ahead.serves(one):
            logits, greedy = ahead.outputs
            self.waited = 0
        else:
            if ahead is not None:
                self.waits = self.waited = min(2 * self.waited + 1, LONGEST_WAIT)
                # Its inputs may still be on their way.
                torch.cuda.current_stream().synchronize()
            logits, greedy = self.graphs.replay(size, one)
        for part in one:
            part.cache.length += 1
        if len(one) < len(parts):
            others = self.launch([p for p in parts if not is_one(p)])
            return in_order(parts, (of_slots(one, logits), of_slots(one, greedy)), others)
        made = of_slots(one, logits).clone()
        tokens = Tokens(greedy, self.hosts[0])
        self.hosts.reverse()
        if self.waits > 0:
            self.waits -= 1
        else:
            self._begin(one, greedy, tokens)
        return made, tokens.of(one)

    def _begin(self, one: List[Part], greedy: torch.Tensor, tokens: Tokens) -> None:
        size = self.graphs.fitting(one)
        if size is None or size[0] > len(greedy):
            return
        ids, positions = self.graphs.inputs[0, : size[0]], self.graphs.inputs[1, : size[0]]
        ids.copy_(greedy[: size[0]])
        # Slots that are not of the step count on as well: neither beyond the cache, nor beyond the last position that has angles.
        positions.add_(1).clamp_(max=min(self.attention.kv.shape[4], self.context) - 1)
        self.ahead = Ahead(self.graphs.replay(size, None), tokens, {p.cache.index: p.cache.length for p in one})
