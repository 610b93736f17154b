"""The model in PyTorch: the same code on CUDA, ROCm, Apple's MPS and the CPU, whichever torch has. What it is made of stands behind seams, see seams.py."""

import json
import os
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import torch

from core.batch import Batch, Part
from core.safetensors import Weights
from core.seams import bound
from core.shape import Shape


def pick_device() -> torch.device:
    if torch.cuda.is_available():  # ROCm's torch answers here as well
        return torch.device("cuda")
    mps = getattr(torch.backends, "mps", None)
    return torch.device("mps" if mps is not None and mps.is_available() else "cpu")


class Backend:
    def __init__(self, folder: str, threads: Optional[int] = None, group: Any = None) -> None:
        """group: this process's place among those that the model is spread over, see parallel.py; None: it is here as a whole."""
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            self.shape = Shape(json.load(file))
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = pick_device()
        # bfloat16 is slow on most CPUs and exact nowhere: there the model is computed in float32.
        self.type = torch.float32 if self.device.type == "cpu" else self.shape.type
        #: Over how many devices the model is spread.
        self.devices = 1 if group is None else group.size
        self.weights = Weights(folder, self.device, self.type) if group is None else group.join(self, folder)
        made = bound if group is None else group.bound
        self.linear = made("Linear")(self)
        self.attention = made("Attention")(self)
        self.layer = made("Layer")(self)
        self.head = made("Head")(self)
        self.scheduler = made("Scheduler")(self)
        self.greedy: Any = None

    def new_cache(self) -> Any:
        return self.attention.new_cache()

    def launch(self, parts: List[Part]) -> Tuple[torch.Tensor, torch.Tensor]:
        """One step, one launch after another: for schedulers. Logits of the wanted rows, and the likeliest token of each."""
        batch = Batch(parts, self.device)
        logits = self.head(self.layer(batch))
        batch.advance()
        return logits, logits.argmax(dim=-1)

    @torch.no_grad()
    def forward(self, parts: Sequence[Tuple[List[int], Any, int]]) -> torch.Tensor:
        """Takes the tokens of each part through the model behind what its cache holds; logits of its last `wanted` positions, part after part."""
        logits, self.greedy = self.scheduler.step([Part(*part) for part in parts])
        return logits

    def argmax(self, _logits: torch.Tensor) -> List[int]:
        """Of the last step."""
        return self.greedy.tolist()

    @torch.no_grad()
    def logprobs(self, logits: torch.Tensor, rows: List[int]) -> np.ndarray:
        return torch.log_softmax(logits[torch.tensor(rows, device=logits.device)].float(), dim=-1).cpu().numpy()
