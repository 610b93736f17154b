"""The body of the model, one product after another."""

from typing import Any

import torch

from core.batch import Batch


class Layer:
    def __init__(self, model: Any) -> None:
        self.shape, self.weights, self.linear, self.attention = model.shape, model.weights, model.linear, model.attention
        self.cos, self.sin = model.shape.turns(model.device, model.type)

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.attention.begin(batch)
        cos, sin = self.cos[batch.positions][:, None], self.sin[batch.positions][:, None]
        x = self.weights["model.embed_tokens.weight"][batch.ids]
        for layer in range(self.shape.layers):
            name = f"model.layers.{layer}."
            x = x + self._attention(layer, self._norm(x, name + "input_layernorm"), cos, sin, batch)
            h = self._norm(x, name + "post_attention_layernorm")
            gated = torch.nn.functional.silu(self.linear(h, name + "mlp.gate_proj")) * self.linear(h, name + "mlp.up_proj")
            x = x + self.linear(gated, name + "mlp.down_proj")
        return self._norm(x[batch.rows], "model.norm")

    def _attention(self, layer: int, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, batch: Batch) -> torch.Tensor:
        name, dim = f"model.layers.{layer}.self_attn.", self.shape.dim
        q = self.linear(x, name + "q_proj").view(len(x), -1, dim)
        k = self.linear(x, name + "k_proj").view(len(x), -1, dim)
        v = self.linear(x, name + "v_proj").view(len(x), -1, dim)
        if name + "q_norm.weight" in self.weights:
            q, k = self._norm(q, name + "q_norm"), self._norm(k, name + "k_norm")
        return self.linear(self.attention(layer, rotate(q, cos, sin), rotate(k, cos, sin), v, batch), name + "o_proj")

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        wide = x.float()
        return self.weights[name + ".weight"] * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.shape.eps)).to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin
