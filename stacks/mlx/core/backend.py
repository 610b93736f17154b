"""The model in MLX: Apple's GPU, or the CPU of a Linux machine. Llama, Qwen2 and Qwen3 checkpoints, also those that mlx-lm has quantised."""

import glob
import json
import math
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

import mlx.core as mx
import numpy as np

from core.rope import rope_frequencies

FAMILIES = ("llama", "qwen2", "qwen3")


class Cache:
    """Keys and values of one sequence: [keys, values] a layer, each kv heads × length × dim."""

    def __init__(self, layers: int) -> None:
        self.length = 0
        self.layers: List[Any] = [None] * layers

    def add(self, layer: int, keys: mx.array, values: mx.array) -> Tuple[mx.array, mx.array]:
        before = self.layers[layer]
        if before is not None:
            keys, values = mx.concatenate([before[0], keys], axis=1), mx.concatenate([before[1], values], axis=1)
        self.layers[layer] = (keys, values)
        return keys, values


class Backend:
    def __init__(self, folder: str, threads: Optional[int] = None) -> None:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        if config["model_type"] not in FAMILIES:
            raise ValueError(f'model_type "{config["model_type"]}" is not served; served are {", ".join(FAMILIES)}')
        self.device = mx.default_device()
        self.layers = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.kv_heads = int(config.get("num_key_value_heads") or self.heads)
        self.dim = int(config.get("head_dim") or config["hidden_size"] // self.heads)
        self.eps = float(config["rms_norm_eps"])
        #: {group_size, bits} of a checkpoint whose matrices mlx-lm has quantised.
        self.quantised = config.get("quantization")
        self.weights: Dict[str, mx.array] = {}
        for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
            self.weights.update(mx.load(path))
        self.angles = rope_frequencies(config, self.dim)

    def new_cache(self) -> Cache:
        return Cache(self.layers)

    def forward(self, parts: Sequence[Tuple[List[int], Cache, int]]) -> mx.array:
        """Takes the tokens of each part through the model behind what its cache holds; logits of its last `wanted` positions, part after part."""
        ids = mx.array([t for tokens, _, _ in parts for t in tokens])
        positions = np.array([c.length + i for tokens, c, _ in parts for i in range(len(tokens))], dtype=np.float64)
        angles = np.concatenate([positions[:, None] * self.angles] * 2, axis=-1)[:, None, :]
        x = self._embed(ids)
        cos, sin = mx.array(np.cos(angles)).astype(x.dtype), mx.array(np.sin(angles)).astype(x.dtype)
        for layer in range(self.layers):
            x = x + self._attention(layer, self._norm(x, f"model.layers.{layer}.input_layernorm.weight"), cos, sin, parts)
            h = self._norm(x, f"model.layers.{layer}.post_attention_layernorm.weight")
            name = f"model.layers.{layer}.mlp."
            gate = self._linear(h, name + "gate_proj")
            x = x + self._linear(gate * mx.sigmoid(gate) * self._linear(h, name + "up_proj"), name + "down_proj")
        rows: List[int] = []
        at = 0
        for tokens, cache, wanted in parts:
            cache.length += len(tokens)
            at += len(tokens)
            rows += range(at - wanted, at)
        kept = [array for _, cache, _ in parts for pair in cache.layers for array in pair]
        if not rows:
            mx.eval(kept)
            return x[:0]
        x = self._norm(x[mx.array(rows)], "model.norm.weight")
        logits = self._linear(x, "lm_head" if "lm_head.weight" in self.weights else "model.embed_tokens").astype(mx.float32)
        mx.eval(logits, kept)
        return logits

    def argmax(self, logits: mx.array) -> List[int]:
        found: Any = mx.argmax(logits, axis=-1).tolist()
        return found

    def logprobs(self, logits: mx.array, rows: List[int]) -> np.ndarray:
        some = logits[mx.array(rows)]
        return np.array(some - mx.logsumexp(some, axis=-1, keepdims=True))

    def _attention(self, layer: int, x: mx.array, cos: mx.array, sin: mx.array, parts: Sequence[Tuple[List[int], Cache, int]]) -> mx.array:
        name = f"model.layers.{layer}.self_attn."
        q = self._linear(x, name + "q_proj").reshape(len(x), self.heads, self.dim)
        k = self._linear(x, name + "k_proj").reshape(len(x), self.kv_heads, self.dim)
        v = self._linear(x, name + "v_proj").reshape(len(x), self.kv_heads, self.dim)
        if name + "q_norm.weight" in self.weights:
            q, k = self._norm(q, name + "q_norm.weight"), self._norm(k, name + "k_norm.weight")
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out, at = [], 0
        for tokens, cache, _ in parts:
            n = len(tokens)
            keys, values = cache.add(layer, k[at : at + n].swapaxes(0, 1), v[at : at + n].swapaxes(0, 1))
            out.append(attend(q[at : at + n].swapaxes(0, 1), keys, values))
            at += n
        return self._linear(mx.concatenate(out), name + "o_proj")

    def _embed(self, ids: mx.array) -> mx.array:
        rows = self._weight("model.embed_tokens.weight")[ids]
        if "model.embed_tokens.scales" not in self.weights:
            return rows
        q = self.quantised
        scales, biases = (self._weight(f"model.embed_tokens.{part}")[ids] for part in ("scales", "biases"))
        return mx.dequantize(rows, scales, biases, group_size=q["group_size"], bits=q["bits"])

    def _linear(self, x: mx.array, name: str) -> mx.array:
        weight = self._weight(name + ".weight")
        if name + ".scales" in self.weights:
            q = self.quantised
            scales, biases = self._weight(name + ".scales"), self._weight(name + ".biases")
            y = mx.quantized_matmul(x, weight, scales, biases, transpose=True, group_size=q["group_size"], bits=q["bits"])
        else:
            y = x @ weight.T
        bias = self.weights.get(name + ".bias")
        return y if bias is None else y + bias

    def _norm(self, x: mx.array, name: str) -> mx.array:
        return mx.fast.rms_norm(x, self._weight(name), self.eps)

    def _weight(self, name: str) -> mx.array:
        found = self.weights.get(name)
        if found is None:
            raise ValueError(f"the checkpoint has no tensor {name}")
        return found


def rotate(x: mx.array, cos: mx.array, sin: mx.array) -> mx.array:
    a, b = mx.split(x, 2, axis=-1)
    return x * cos + mx.concatenate([-b, a], axis=-1) * sin


def attend(q: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """q: heads × n × dim, the last n of the positions in keys and values (kv heads × length × dim); each sees itself and what is before it."""
    n, length, group = q.shape[1], keys.shape[1], q.shape[0] // keys.shape[0]
    keys, values = mx.repeat(keys, group, axis=0), mx.repeat(values, group, axis=0)
    scores = (q @ keys.swapaxes(1, 2)).astype(mx.float32) / math.sqrt(q.shape[2])
    if n > 1:
        later = mx.arange(length)[None, :] > mx.arange(length - n, length)[:, None]
        scores = mx.where(later, -math.inf, scores)
    mixed = mx.softmax(scores, axis=-1).astype(values.dtype) @ values
    return mixed.swapaxes(0, 1).reshape(n, -1)
