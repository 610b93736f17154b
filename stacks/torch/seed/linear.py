"""Products as torch has them, weights as the checkpoint has them."""

from typing import Any, List

import torch


class Linear:
    def __init__(self, model: Any) -> None:
        self.weights = model.weights

    def join(self, names: List[str], name: str) -> None:
        self.weights.join(names, name)

    def __call__(self, x: torch.Tensor, name: str) -> torch.Tensor:
        y = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias
