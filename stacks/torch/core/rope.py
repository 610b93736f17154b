"""Rotary angles, in NumPy, so that every framework's stack has the same ones."""

import math
from typing import Any, Dict

import numpy as np


def rope_frequencies(config: Dict[str, Any], dim: int) -> np.ndarray:
    """Angles per position: the default, and Llama 3's stretched low frequencies. float64, as they are computed once."""
    given = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    base = float(given.get("rope_theta", config.get("rope_theta", 10000.0)))
    kind = given.get("rope_type", given.get("type", "default"))
    angles = base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
    if kind == "default":
        return angles
    if kind != "llama3":
        raise ValueError(f'rope type "{kind}" is not served; served are default, llama3')
    factor, low, high, original = (float(given[k]) for k in ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"))
    blend = np.clip((original * angles / (2 * math.pi) - low) / (high - low), 0, 1)
    return angles * blend + angles / factor * (1 - blend)
