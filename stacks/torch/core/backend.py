"""The model in PyTorch, eager: the same code on CUDA, ROCm, Apple's MPS and the CPU, whichever torch has. Llama, Qwen2 and Qwen3 checkpoints."""

import glob
import json
import math
import mmap
import os
import struct
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch

FAMILIES = ("llama", "qwen2", "qwen3")
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_safetensors(path: str) -> Dict[str, torch.Tensor]:
    """Tensors that share the file's pages: 8 bytes length, a JSON header, then the bytes it points into."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        kind = TYPES.get(entry["dtype"])
        if kind is None:
            raise ValueError(f"tensor {name} has type {entry['dtype']}; served are {', '.join(TYPES)}")
        count = (end - begin) // torch.empty((), dtype=kind).element_size()
        tensors[name] = torch.frombuffer(pages, dtype=kind, count=count, offset=8 + length + begin).reshape(entry["shape"])
    return tensors


def pick_device() -> torch.device:
    if torch.cuda.is_available():  # ROCm's torch answers here as well
        return torch.device("cuda")
    mps = getattr(torch.backends, "mps", None)
    return torch.device("mps" if mps is not None and mps.is_available() else "cpu")


def rope_frequencies(config: dict, dim: int) -> torch.Tensor:
    """Angles per position: the default, and Llama 3's stretched low frequencies. float64, as they are computed once."""
    given = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    base = float(given.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = given.get("rope_type", given.get("type", "default"))
    angles = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if kind == "default":
        return angles
    if kind != "llama3":
        raise ValueError(f'rope type "{kind}" is not served; served are default, llama3')
    factor, low, high, original = (float(given[k]) for k in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"))
    waves = 2 * math.pi / angles
    blend = ((original / waves - low) / (high - low)).clamp(0, 1)
    return angles * blend + angles / factor * (1 - blend)


class Cache:
    """Keys and values of one sequence, for as many positions as it can come to."""

    def __init__(self, layers: int, heads: int, capacity: int, dim: int, like: torch.Tensor) -> None:
        self.length = 0
        self.keys = torch.empty(layers, heads, capacity, dim, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)


class Backend:
    def __init__(self, folder: str, threads: Optional[int] = None) -> None:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        if config["model_type"] not in FAMILIES:
            raise ValueError(f'model_type "{config["model_type"]}" is not served; served are {", ".join(FAMILIES)}')
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = pick_device()
        self.layers = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.kv_heads = int(config.get("num_key_value_heads") or self.heads)
        self.dim = int(config.get("head_dim") or config["hidden_size"] // self.heads)
        self.eps = float(config["rms_norm_eps"])
        # bfloat16 is slow on most CPUs and exact nowhere: there the seed computes in float32.
        stated = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(str(config.get("dtype", config.get("torch_dtype"))), torch.float32)
        self.type = torch.float32 if self.device.type == "cpu" else stated
        self.weights: Dict[str, torch.Tensor] = {}
        for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
            for name, tensor in read_safetensors(path).items():
                self.weights[name] = tensor.to(device=self.device, dtype=self.type)
        self.embedding = self._weight("model.embed_tokens.weight")
        self.head = self.weights.get("lm_head.weight", self.embedding)
        self.angles = rope_frequencies(config, self.dim)

    def new_cache(self, capacity: int) -> Cache:
        return Cache(self.layers, self.kv_heads, capacity, self.dim, self.embedding)

    @torch.no_grad()
    def forward(self, parts: Sequence[Tuple[List[int], Cache, int]]) -> torch.Tensor:
        """Takes the tokens of each part through the model behind what its cache holds; logits of its last `wanted` positions, part after part."""
        ids = torch.tensor([t for tokens, _, _ in parts for t in tokens], device=self.device)
        positions = torch.tensor([c.length + i for tokens, c, _ in parts for i in range(len(tokens))], dtype=torch.float64)
        angles = torch.cat([positions[:, None] * self.angles] * 2, dim=-1)[:, None, :]
        cos, sin = angles.cos().to(self.device, self.type), angles.sin().to(self.device, self.type)
        x = self.embedding[ids]
        for layer in range(self.layers):
            x = x + self._attention(layer, self._norm(x, f"model.layers.{layer}.input_layernorm.weight"), cos, sin, parts)
            h = self._norm(x, f"model.layers.{layer}.post_attention_layernorm.weight")
            name = f"model.layers.{layer}.mlp."
            x = x + self._linear(torch.nn.functional.silu(self._linear(h, name + "gate_proj")) * self._linear(h, name + "up_proj"), name + "down_proj")
        rows: List[int] = []
        at = 0
        for tokens, cache, wanted in parts:
            cache.length += len(tokens)
            at += len(tokens)
            rows += range(at - wanted, at)
        x = self._norm(x[torch.tensor(rows, dtype=torch.long, device=self.device)], "model.norm.weight")
        return (x @ self.head.T).float()

    def argmax(self, logits: torch.Tensor) -> List[int]:
        return logits.argmax(dim=-1).tolist()

    def logprobs(self, logits: torch.Tensor, rows: List[int]) -> np.ndarray:
        return torch.log_softmax(logits[torch.tensor(rows, device=logits.device)], dim=-1).cpu().numpy()

    def _attention(self, layer: int, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, parts: Sequence[Tuple[List[int], Cache, int]]) -> torch.Tensor:
        name = f"model.layers.{layer}.self_attn."
        q = self._linear(x, name + "q_proj").view(len(x), self.heads, self.dim)
        k = self._linear(x, name + "k_proj").view(len(x), self.kv_heads, self.dim)
        v = self._linear(x, name + "v_proj").view(len(x), self.kv_heads, self.dim)
        if name + "q_norm.weight" in self.weights:
            q, k = self._norm(q, name + "q_norm.weight"), self._norm(k, name + "k_norm.weight")
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        out, at = [], 0
        for tokens, cache, _ in parts:
            n, end = len(tokens), cache.length + len(tokens)
            cache.keys[layer, :, cache.length : end] = k[at : at + n].transpose(0, 1)
            cache.values[layer, :, cache.length : end] = v[at : at + n].transpose(0, 1)
            out.append(attend(q[at : at + n].transpose(0, 1), cache.keys[layer, :, :end], cache.values[layer, :, :end]))
            at += n
        return self._linear(torch.cat(out), name + "o_proj")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        y = x @ self._weight(name + ".weight").T
        bias = self.weights.get(name + ".bias")
        return y if bias is None else y + bias

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        wide = x.float()
        return self._weight(name) * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)

    def _weight(self, name: str) -> torch.Tensor:
        found = self.weights.get(name)
        if found is None:
            raise ValueError(f"the checkpoint has no tensor {name}")
        return found


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


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
