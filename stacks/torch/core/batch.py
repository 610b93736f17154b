"""What one step computes: rows of several sequences, one sequence after another."""

from typing import Any, List, NamedTuple, Sequence

import torch


class Part(NamedTuple):
    """A sequence's share of a step: the tokens that are put behind what its cache holds, and of how many of the last ones logits are wanted."""

    tokens: List[int]
    cache: Any
    wanted: int


class Batch:
    """ids, positions: int64, one a row, on the device. rows: which rows' logits are wanted, in order."""

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        self.parts = parts
        self.ids = torch.tensor([t for part in parts for t in part.tokens], device=device)
        self.positions = torch.tensor([part.cache.length + i for part in parts for i in range(len(part.tokens))], device=device)
        wanted: List[int] = []
        at = 0
        for part in parts:
            at += len(part.tokens)
            wanted += range(at - part.wanted, at)
        self.rows = torch.tensor(wanted, dtype=torch.long, device=device)

    def advance(self) -> None:
        """After the last layer: the caches hold these rows."""
        for part in self.parts:
            part.cache.length += len(part.tokens)
