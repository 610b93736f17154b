"""One cache for all sequences, a slot each: [layers, 2, slots, kv heads, length, dim]. Rows of one token are attended to together, however many sequences they are of.

Slots and length double when they run out; the tensor is then another one (`generation` counts), so whoever holds its address must look again.
"""

import weakref
from typing import Any, List, Optional, Tuple

import torch
import torch.nn.functional as F

from core.batch import Batch

SLOTS, LENGTH = 16, 512
#: Attended lengths are rounded up to these, so that few shapes occur. Beyond the last: its multiples.
LENGTHS = (128, 256, 512, 1024, 2048)


def bucket(longest: int) -> int:
    """Smallest length that is above the highest position."""
    return next((n for n in LENGTHS if longest < n), -(-(longest + 1) // LENGTHS[-1]) * LENGTHS[-1])


class Slot:
    """A sequence's place in the cache; free again when nobody holds it."""

    def __init__(self, index: int) -> None:
        self.index, self.length = index, 0


class Rows:
    """Rows of one token: the slot and the position of each, int64 on the device; `length` is above every position. dense: slots are 0, 1, 2, …"""

    def __init__(self, slots: torch.Tensor, positions: torch.Tensor, length: int, dense: bool) -> None:
        self.slots, self.positions, self.dense = slots, positions, dense
        self.length = length
        self.visible = (torch.arange(length, device=slots.device)[None] <= positions[:, None])[:, None, None]


class Attention:
    def __init__(self, model: Any) -> None:
        self.shape, self.device, self.type = model.shape, model.device, model.type
        if self.device.type == "cuda" and hasattr(torch.backends.cuda, "enable_cudnn_sdp"):
            # It makes a plan for each shape that it has not seen: tens of milliseconds, and prompts and batches have hundreds of shapes.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.generation = 0
        #: Slots that sequences hold, by index.
        self.taken: "weakref.WeakValueDictionary[int, Slot]" = weakref.WeakValueDictionary()
        self.kv = self._made(SLOTS, LENGTH)
        self.rows: Optional[Rows] = None
        #: Which rows of the step those are; None: all.
        self.where: Optional[torch.Tensor] = None
        #: (rows of the step, slot, position of the first) of each part of several tokens.
        self.prompts: List[Tuple[slice, int, int]] = []

    def _made(self, slots: int, length: int) -> torch.Tensor:
        shape = self.shape
        return torch.zeros(shape.layers, 2, slots, shape.kv_heads, length, shape.dim, dtype=self.type, device=self.device)

    def new_cache(self) -> Slot:
        index = next(i for i in range(len(self.taken) + 1) if i not in self.taken)
        self._grow(index + 1, 1)
        self.taken[index] = slot = Slot(index)
        return slot

    def _grow(self, slots: int, length: int) -> None:
        """By doubling, and only as sequences really come to it: most of those that may fill the context never do."""
        had = (self.kv.shape[2], self.kv.shape[4])
        more, longer = had
        while more < slots:
            more *= 2
        while longer < length:
            longer *= 2
        if (more, longer) != had:
            old, self.kv = self.kv, self._made(more, longer)
            self.kv[:, :, : had[0], :, : had[1]] = old
            self.generation += 1

    def begin(self, batch: Batch) -> None:
        """A batch without parts (of a graph) is one token of each slot, below position `batch.length`."""
        self.rows, self.where, self.prompts = None, None, []
        if batch.parts is None:
            self.rows = Rows(torch.arange(len(batch.positions), device=self.device), batch.positions, batch.length, True)
            return
        self._grow(1, max(slot.length + len(tokens) for tokens, slot, _ in batch.parts))
        where, slots, longest, at = [], [], 0, 0
        for tokens, slot, _ in batch.parts:
            if len(tokens) == 1:
                where.append(at)
                slots.append(slot.index)
                longest = max(longest, slot.length)
            else:
                self.prompts.append((slice(at, at + len(tokens)), slot.index, slot.length))
            at += len(tokens)
        if slots:
            if self.prompts:
                self.where = torch.tensor(where, device=self.device)
            positions = batch.positions if self.where is None else batch.positions[self.where]
            dense = slots == list(range(len(slots)))
            self.rows = Rows(torch.tensor(slots, device=self.device), positions, min(bucket(longest), self.kv.shape[4]), dense)

    def __call__(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: Batch) -> torch.Tensor:
        if self.rows is not None and self.where is None:
            return self.attend(layer, q, k, v, self.rows)
        out = torch.empty_like(q)
        if self.rows is not None:
            where = self.where
            out[where] = self.attend(layer, q[where], k[where], v[where], self.rows).view(len(where), *q.shape[1:])
        for rows, slot, start in self.prompts:
            out[rows] = self._prompt(layer, q[rows], k[rows], v[rows], slot, start)
        return out.reshape(len(q), -1)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: Rows) -> torch.Tensor:
        """One token of each sequence. The group of query heads that shares a key becomes the query's length, so keys and values are read once."""
        n, heads, dim = q.shape
        keys, values = self.kv[layer, 0], self.kv[layer, 1]
        keys[rows.slots, :, rows.positions] = k
        values[rows.slots, :, rows.positions] = v
        if rows.dense:
            keys, values = keys[:n, :, : rows.length], values[:n, :, : rows.length]
        else:
            keys, values = keys[rows.slots, :, : rows.length], values[rows.slots, :, : rows.length]
        grouped = q.view(n, self.shape.kv_heads, heads // self.shape.kv_heads, dim)
        return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=rows.visible).reshape(n, heads * dim)

    def _prompt(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slot: int, start: int) -> torch.Tensor:
        """Several tokens of one sequence: rows × heads × dim."""
        n, end = len(q), start + len(q)
        kv = self.kv[layer, :, slot]
        kv[0, :, start:end] = k.transpose(0, 1)
        kv[1, :, start:end] = v.transpose(0, 1)
        group = q.shape[1] // k.shape[1]
        keys, values = (t[:, :end].repeat_interleave(group, dim=0)[None] for t in (kv[0], kv[1]))
        query = q.transpose(0, 1)[None]
        if start == 0:
            out = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
        else:
            seen = torch.ones(n, end, dtype=torch.bool, device=q.device).tril(diagonal=start)
            out = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
        return out[0].transpose(0, 1)
