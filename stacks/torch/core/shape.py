"""What config.json says of a model, and angles made of it."""

import math
from typing import Any, Dict

import torch

FAMILIES = ("llama", "qwen2", "qwen3")
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Shape:
    """Sizes of a model; `type` is the one that it is stated in. Raises ValueError for a family that is not served."""

    def __init__(self, config: Dict[str, Any]) -> None:
        if config["model_type"] not in FAMILIES:
            raise ValueError(f'model_type "{config["model_type"]}" is not served; served are {", ".join(FAMILIES)}')
        self.layers = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.kv_heads = int(config.get("num_key_value_heads") or self.heads)
        self.dim = int(config.get("head_dim") or config["hidden_size"] // self.heads)
        self.context = int(config["max_position_embeddings"])
        self.eps = float(config["rms_norm_eps"])
        self.type = TYPES.get(str(config.get("dtype", config.get("torch_dtype"))), torch.float32)
        self.angles = rope_frequencies(config, self.dim)

    def turns(self, device: torch.device, kind: torch.dtype) -> "tuple[torch.Tensor, torch.Tensor]":
        """cos and sin of every position's angles, context × dim: a head's first half and its second turn by the same ones."""
        angles = torch.arange(self.context, dtype=torch.float64)[:, None] * self.angles
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(device, kind), angles.sin().to(device, kind)


def rope_frequencies(config: Dict[str, Any], dim: int) -> torch.Tensor:
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
