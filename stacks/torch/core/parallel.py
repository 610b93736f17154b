"""Tensor parallelism: one model over several devices of this machine, a process ("rank") for each.

Heads, units of the feed-forward and the vocabulary are cut into runs, one a rank. Where a matrix's rows are cut (q, k, v, gate, up, the output matrix), a rank's product is some columns of the
result; where its columns are cut (o, down), it is a part of a sum. So in a step the ranks add up twice a layer, and at its end put the logits' columns side by side. What stands behind a seam
sees a smaller model: weights and shape are cut before it is made, and what the ranks say to each other is said around Linear and Head. Norms, biases after a sum and the embedding are not cut.
"""

import datetime
import json
import os
from typing import Any, Optional

import torch
import torch.distributed as dist
import torch.nn.functional as F

from core.safetensors import Weights
from core.seams import bound
from core.shape import Shape

ROWS = ("q_proj", "gate_proj", "up_proj", "lm_head")
KEYS = ("k_proj", "v_proj")
COLUMNS = ("o_proj", "down_proj")
#: One rank may come to a sum long after another: it still tunes or compiles what it runs. None takes longer than this.
PATIENCE = datetime.timedelta(minutes=10)


def check(folder: str, size: int) -> None:
    """Raises ValueError that says why this model can't be spread over so many devices, and over how many it could."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        shape = Shape(json.load(file))
    if not can_cut(shape, size):
        could = ", ".join(str(n) for n in range(1, shape.heads + 1) if can_cut(shape, n))
        raise ValueError(f"its {shape.heads} heads with {shape.kv_heads} of keys and values can't be cut for {size} devices; for {could} they can")
    if not dist.is_available() or not os.path.exists("/proc/self/fd"):
        raise ValueError(f"{size} devices need a torch with torch.distributed, on Linux")
    if torch.cuda.is_available() and torch.cuda.device_count() < size:
        raise ValueError(f"{size} devices are asked for, {torch.cuda.device_count()} visible")


def can_cut(shape: Shape, size: int) -> bool:
    """Each rank has as many heads; those of keys and values are cut as well, or each stands on several ranks."""
    return size > 0 and shape.heads % size == 0 and (shape.kv_heads % size == 0 or size % shape.kv_heads == 0)


class Group:
    """This process among all ranks. `meeting` is a file that each of them has open under this number, empty at first: in it they find each other."""

    def __init__(self, rank: int, size: int, meeting: int) -> None:
        self.rank, self.size, self.meeting = rank, size, meeting
        self.kv_heads, self.vocab = 0, 0

    def join(self, model: Any, folder: str) -> Weights:
        """Loads what this rank has of the model, makes its shape that of this share, and meets the others."""
        shape, self.kv_heads = model.shape, model.shape.kv_heads
        shape.heads, shape.kv_heads = shape.heads // self.size, max(1, shape.kv_heads // self.size)
        backend = "gloo"
        if model.device.type == "cuda":
            backend = "nccl"
            torch.cuda.set_device(self.rank)
        weights = Weights(folder, model.device, model.type, self.share)
        embedding = weights["model.embed_tokens.weight"]
        self.vocab = len(embedding)
        weights.setdefault("lm_head.weight", embedding[self.run(self.vocab)])
        # On one machine they need no other interface than the loopback's, and by another they could be reached.
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
        store = dist.FileStore(f"/proc/self/fd/{self.meeting}", self.size)
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        return weights

    def bound(self, seam: str) -> Any:
        """The seam's class, with what the ranks say to each other around what it makes."""
        made, around = bound(seam), {"Linear": Summed, "Head": Gathered}.get(seam)
        return made if around is None else lambda model: around(made(model), self)

    def run(self, count: int) -> slice:
        each = -(-count // self.size)
        return slice(self.rank * each, (self.rank + 1) * each)

    def share(self, name: str, tensor: torch.Tensor) -> Optional[torch.Tensor]:
        """What this rank has of a checkpoint's tensor, of which it reads no more; None: nothing."""
        matrix = name.split(".")[-2:][0]
        if matrix in COLUMNS:
            # A bias is added to the sum once.
            return tensor[:, self.run(tensor.shape[1])].contiguous() if tensor.dim() == 2 else tensor if self.rank == 0 else None
        if matrix in KEYS:
            rows, first = tensor.shape[0] // self.kv_heads, self.rank * self.kv_heads // self.size
            return tensor[rows * first : rows * (first + max(1, self.kv_heads // self.size))]
        return tensor[self.run(tensor.shape[0])] if matrix in ROWS else tensor

    def wait(self, device: torch.device) -> None:
        """Until all have come so far."""
        self.sum(torch.zeros(1, device=device)).item()

    def sum(self, part: torch.Tensor) -> torch.Tensor:
        part = part.contiguous()
        dist.all_reduce(part)
        return part

    def side_by_side(self, columns: torch.Tensor) -> torch.Tensor:
        """Runs of the vocabulary, of which the last may be shorter."""
        if len(columns) == 0:
            return columns.new_empty(0, self.vocab)
        own = F.pad(columns, (0, -(-self.vocab // self.size) - columns.shape[1])).contiguous()
        every = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(every, own)
        return torch.cat(every, dim=1)[:, : self.vocab]


class Summed:
    """A Linear whose products of cut columns are added up over all ranks."""

    def __init__(self, linear: Any, group: Group) -> None:
        self.linear, self.group = linear, group

    def __call__(self, x: torch.Tensor, name: str) -> torch.Tensor:
        y = self.linear(x, name)
        return self.group.sum(y) if name.endswith(COLUMNS) else y

    def __getattr__(self, name: str) -> Any:
        return getattr(self.linear, name)


class Gathered:
    """A Head of a run of the vocabulary that answers all logits."""

    def __init__(self, head: Any, group: Group) -> None:
        self.head, self.group = head, group

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.group.side_by_side(self.head(hidden))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.head, name)
