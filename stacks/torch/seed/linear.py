"""Products as torch has them, weights as the checkpoint has them."""

from typing import Any, List

import torch


class Linear:
    def __init__(self, model: Any) -> None:
        self.weights = model.weights

    def join(self, names: List[str], name: str) -> None:
        for kind in ("weight", "bias"):
            parts = [self.weights.pop(f"{n}.{kind}", None) for n in names]
            if all(part is not None for part in parts):
                self.weights[f"{name}.{kind}"] = torch.cat(parts)

    def __call__(self, x: torch.Tensor, name: str) -> torch.Tensor:
        y = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias
