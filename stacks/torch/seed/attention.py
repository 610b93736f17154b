"""Keys and values of each sequence in tensors of its own; one sequence after another."""

import math
from typing import Any

import torch

from core.batch import Batch


class Cache:
    """Keys and values of one sequence. Room doubles as it is needed: most of those that may fill the context never do."""

    def __init__(self, layers: int, heads: int, dim: int, like: torch.Tensor) -> None:
        self.length = 0
        self.keys = torch.empty(layers, heads, 64, dim, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)

    def grow(self, length: int) -> None:
        while self.keys.shape[2] < length:
            self.keys, self.values = (torch.cat([t, torch.empty_like(t)], dim=2) for t in (self.keys, self.values))


class Attention:
    def __init__(self, model: Any) -> None:
        self.shape = model.shape
        self.like = torch.empty(0, dtype=model.type, device=model.device)

    def new_cache(self) -> Cache:
        return Cache(self.shape.layers, self.shape.kv_heads, self.shape.dim, self.like)

    def begin(self, batch: Batch) -> None:
        for tokens, cache, _ in batch.parts:
            cache.grow(cache.length + len(tokens))

    def __call__(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: Batch) -> torch.Tensor:
        out, at = [], 0
        for tokens, cache, _ in batch.parts:
            n, end = len(tokens), cache.length + len(tokens)
            cache.keys[layer, :, cache.length : end] = k[at : at + n].transpose(0, 1)
            cache.values[layer, :, cache.length : end] = v[at : at + n].transpose(0, 1)
            out.append(attend(q[at : at + n].transpose(0, 1), cache.keys[layer, :, :end], cache.values[layer, :, :end]))
            at += n
        return torch.cat(out)


def attend(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """q: heads × n × dim, the last n of the positions in keys and values (kv heads × length × dim); each sees itself and what is before it."""
    n, length, group = q.shape[1], keys.shape[1], q.shape[0] // keys.shape[0]
    keys, values = keys.repeat_interleave(group, dim=0), values.repeat_interleave(group, dim=0)
    scores = (q @ keys.transpose(1, 2)).float() / math.sqrt(q.shape[2])
    if n > 1:
        later = torch.ones(n, length, dtype=torch.bool, device=q.device).triu(diagonal=length - n + 1)
        scores = scores.masked_fill(later, float("-inf"))
    mixed = torch.softmax(scores, dim=-1).to(values.dtype) @ values
    return mixed.transpose(0, 1).reshape(n, -1)
