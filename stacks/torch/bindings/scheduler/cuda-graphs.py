"""Steps of one token a sequence are replayed as CUDA graphs; prompts, and steps that no graph fits, are launched one by one."""

# needs: ../lib/graphs.py
from typing import Any, List, Tuple

import torch

from bound.lib_graphs import graphs_of, in_order, is_one, of_slots
from core.batch import Part


class Scheduler:
    def __init__(self, model: Any) -> None:
        self.launch = model.launch
        self.graphs = graphs_of(model)

    def step(self, parts: List[Part]) -> Tuple[torch.Tensor, torch.Tensor]:
        one = [p for p in parts if is_one(p)]
        size = self.graphs.fitting(one) if self.graphs else None
        if size is None:
            return self.launch(parts)
        logits, greedy = (of_slots(one, values) for values in self.graphs.replay(size, one))
        for part in one:
            part.cache.length += 1
        if len(one) == len(parts):
            return logits, greedy
        return in_order(parts, (logits, greedy), self.launch([p for p in parts if not is_one(p)]))
