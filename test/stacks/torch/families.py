"""python3 families.py STACK MODEL biases|norms: the model with what Qwen 2 (biases of q, k and v) or Qwen 3 (a norm of each head) has beside Llama's tensors. Prints the
logits of a few steps as JSON."""

import json
import sys
from typing import Dict

sys.path.insert(0, sys.argv[1])

import torch  # noqa: E402
import core.safetensors as files  # noqa: E402
from core.backend import Backend  # noqa: E402

plain = files.read_file


def more(path: str) -> Dict[str, torch.Tensor]:
    tensors = plain(path)
    torch.manual_seed(3)
    for name in sorted(n for n in tensors if n.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))):
        if sys.argv[3] == "biases":
            tensors[name.replace(".weight", ".bias")] = torch.randn(tensors[name].shape[0])
        elif "v_proj" not in name:
            tensors[name.replace("_proj", "_norm")] = torch.rand(16) + 0.5
    return tensors


files.read_file = more
backend = Backend(sys.argv[2], 1)
a, b = backend.new_cache(), backend.new_cache()
steps = (
    [([5, 9, 30, 77], a, 4), ([8], b, 1)],
    [([5], a, 1), ([9], b, 1)],
    [([7, 8, 9], b, 2), ([1], a, 1)],
)
print(json.dumps([row for step in steps for row in backend.forward(step).tolist()]))
