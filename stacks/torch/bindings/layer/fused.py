"""The body with two products fewer a layer: q, k and v come from one matrix, gate and up from another; the norm is torch's own, one launch where it has one."""

from typing import Any

import torch
import torch.nn.functional as F

from core.batch import Batch


class Layer:
    def __init__(self, model: Any) -> None:
        self.shape, self.weights, self.linear, self.attention = model.shape, model.weights, model.linear, model.attention
        self.cos, self.sin = model.shape.turns(model.device, model.type)
        for layer in range(self.shape.layers):
            name = f"model.layers.{layer}."
            self.linear.join([f"{name}self_attn.{n}_proj" for n in "qkv"], f"{name}self_attn.qkv")
            self.linear.join([f"{name}mlp.{n}_proj" for n in ("gate", "up")], f"{name}mlp.gate_up")

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.attention.begin(batch)
        return self.rows(batch.ids, batch.positions, batch)[batch.rows]

    def rows(self, ids: torch.Tensor, positions: torch.Tensor, batch: Any) -> torch.Tensor:
        """Every row's normed hidden state; only launches, so that it can be captured."""
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.shape.layers):
            name = f"model.layers.{layer}."
            x = x + self._attention(layer, self._norm(x, name + "input_layernorm"), cos, sin, batch)
            gate, up = self.linear(self._norm(x, name + "post_attention_layernorm"), name + "mlp.gate_up").chunk(2, dim=-1)
            x = x + self.linear(F.silu(gate) * up, name + "mlp.down_proj")
        return self._norm(x, "model.norm")

    def _attention(self, layer: int, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, batch: Any) -> torch.Tensor:
        name, shape = f"model.layers.{layer}.self_attn.", self.shape
        heads = self.linear(x, name + "qkv").view(len(x), -1, shape.dim)
        qk, v = heads[:, : shape.heads + shape.kv_heads], heads[:, shape.heads + shape.kv_heads :]
        if name + "q_norm.weight" in self.weights:
            qk = torch.cat([self._norm(qk[:, : shape.heads], name + "q_norm"), self._norm(qk[:, shape.heads :], name + "k_norm")], dim=1)
        a, b = qk.chunk(2, dim=-1)
        qk = qk * cos + torch.cat([-b, a], dim=-1) * sin
        return self.linear(self.attention(layer, qk[:, : shape.heads], qk[:, shape.heads :], v, batch), name + "o_proj")

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weights[name + ".weight"], self.shape.eps)
