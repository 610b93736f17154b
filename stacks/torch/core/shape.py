"""What config.json says of a model, and angles made of it."""

from typing import Any, Dict

import torch

from core.rope import rope_frequencies

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
        self.angles = torch.from_numpy(rope_frequencies(config, self.dim))

    def turns(self, device: torch.device, kind: torch.dtype) -> "tuple[torch.Tensor, torch.Tensor]":
        """cos and sin of every position's angles, context × dim: a head's first half and its second turn by the same ones."""
        angles = torch.arange(self.context, dtype=torch.float64)[:, None] * self.angles
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(device, kind), angles.sin().to(device, kind)
