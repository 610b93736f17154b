"""The output matrix as one more product."""

from typing import Any

import torch


class Head:
    def __init__(self, model: Any) -> None:
        weights = model.weights
        self.matrix = weights["lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight"]

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return (hidden @ self.matrix.T).float()
