"""python3 shares.py STACK MODEL: over two devices a rank loads one half of each matrix but the embedding, and both halves are the whole. Prints "ok"."""

import json
import sys
import types

sys.path.insert(0, sys.argv[1])
# build.py would make it; nothing is bound here.
sys.modules["bound"] = types.ModuleType("bound")

import torch  # noqa: E402
from core.parallel import Group  # noqa: E402
from core.safetensors import Weights  # noqa: E402

with open(f"{sys.argv[2]}/config.json", encoding="utf-8") as file:
    heads = json.load(file)["num_key_value_heads"]


def loaded(rank: int, size: int) -> Weights:
    group = Group(rank, size, -1)
    group.kv_heads = heads
    return Weights(sys.argv[2], torch.device("cpu"), torch.float32, group.share)


whole, first, second = loaded(0, 1), loaded(0, 2), loaded(1, 2)
for name, tensor in whole.items():
    if tensor.dim() == 2 and "embed" not in name:
        assert first[name].numel() == second[name].numel() == tensor.numel() // 2, name
        cut = 1 if "o_proj" in name or "down_proj" in name else 0
        assert torch.equal(torch.cat([first[name], second[name]], dim=cut), tensor), name
    elif "o_proj" in name:
        assert torch.equal(first[name], tensor) and name not in second, name
    elif "bias" in name:
        assert torch.equal(torch.cat([first[name], second[name]]), tensor), name
    else:
        assert torch.equal(first[name], tensor) and torch.equal(second[name], tensor), name
print("ok")
