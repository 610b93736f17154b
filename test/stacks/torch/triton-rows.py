"""python3 triton-rows.py FILE: the products of the binding in Triton's interpreter beside torch's, and what happens where a tile is too large for the device. Prints "ok"."""

import importlib.util
import os
import sys
import types
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402

spec = importlib.util.spec_from_file_location("triton_rows", sys.argv[1])
assert spec is not None and spec.loader is not None
rows = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rows)
torch.manual_seed(1)

for n, columns, depth in ((1, 24, 40), (16, 130, 256), (17, 33, 300), (64, 16, 512)):
    x, w = torch.randn(n, depth), torch.randn(columns, depth)
    for tile in rows.TILES:
        assert torch.allclose(rows.launch(x, w, tile), x @ w.T, atol=1e-3), (n, columns, depth, tile)

# As a device answers whose shared memory holds no tile of 64 rows: the product is torch's, and the others stay Triton's.
real, launched = rows.launch, []


def small(x: torch.Tensor, w: torch.Tensor, tile: Any) -> torch.Tensor:
    launched.append(rows.height(len(x)))
    if rows.height(len(x)) > 32:
        raise rows.OutOfResources(122_880, 101_376, "shared memory")
    return real(x, w, tile)


rows.launch = small
w, bias = torch.randn(24, 40), torch.randn(24)
linear = rows.Linear(types.SimpleNamespace(weights={"a.weight": w, "a.bias": bias}, device=types.SimpleNamespace(type="cuda")))
linear.tiles[24, 40] = rows.TILES[0]
for n in (64, 33, 32, 1, 65):
    x = torch.randn(n, 40)
    assert torch.allclose(linear(x, "a"), x @ w.T + bias, atol=1e-3), n
assert launched == [64, 32, 16], launched
print("ok")
