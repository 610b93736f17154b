"""Products of few rows by a Triton kernel: each program streams its columns' weights once, many bytes in flight; more rows than 64 go to torch.

Which tile is fastest is measured for each shape of matrix when it is first used, before the server is ready where the first use is a warm-up.
"""

import contextlib
from typing import Any, Dict, List, Set, Tuple

import torch
import triton
import triton.language as tl
from triton import OutOfResources

MOST_ROWS = 64
#: Above the L2 of every device that this is for: 50 MB (H100), 60 MB (H200).
COLD_BYTES = 160 * 2**20
#: (columns of a tile, depth of a step, stages, warps). The second won torch's own sweep of 19 on an H200 for 2048 → 3072, bfloat16, 16 rows; the first is for
#: matrices of few rows, which else leave most of the device idle.
TILES = ((16, 256, 4, 4), (32, 128, 5, 2), (32, 256, 3, 4), (64, 128, 4, 4))


@triton.jit
def product(x, w, y, rows, columns, depth, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m, n, k = tl.arange(0, BM), tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, BK)
    xs = x + m[:, None] * depth + k[None, :]
    # Columns beyond the last read the last one's weights, and are not written.
    ws = w + tl.minimum(n, columns - 1).to(tl.int64)[None, :] * depth + k[:, None]
    total = tl.zeros((BM, BN), tl.float32)
    for at in range(0, depth, BK):
        inside = k + at < depth
        a = tl.load(xs + at, mask=(m < rows)[:, None] & inside[None, :], other=0.0)
        b = tl.load(ws + at, mask=inside[:, None], other=0.0)
        # Else float32 would be multiplied as TF32, which has 10 bits.
        total = tl.dot(a, b, total, input_precision="ieee")
    tl.store(y + m[:, None] * columns + n[None, :], total.to(y.dtype.element_ty), mask=(m < rows)[:, None] & (n < columns)[None, :])


def height(rows: int) -> int:
    return 16 if rows <= 16 else 32 if rows <= 32 else 64


def launch(x: torch.Tensor, w: torch.Tensor, tile: Tuple[int, int, int, int]) -> torch.Tensor:
    """Raises OutOfResources where the device's shared memory does not hold the tile at this height."""
    (rows, depth), columns = x.shape, w.shape[0]
    y = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    wide, deep, stages, warps = tile
    grid = (triton.cdiv(columns, wide),)
    product[grid](x, w, y, rows, columns, depth, BM=height(rows), BN=wide, BK=deep, num_stages=stages, num_warps=warps)
    return y


class Linear:
    def __init__(self, model: Any) -> None:
        self.weights, self.device = model.weights, model.device
        self.tiles: Dict[Tuple[int, int], Any] = {}
        #: Tiles with the heights at which the device does not hold them: on sm_89 (99 KB) the first at 64 rows, all of them where weights are float32.
        self.too_large: Set[Tuple[Any, int]] = set()

    def join(self, names: List[str], name: str) -> None:
        self.weights.join(names, name)

    def __call__(self, x: torch.Tensor, name: str) -> torch.Tensor:
        w = self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias")
        y = self._product(x, w)
        return y if bias is None else y + bias

    def _product(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        tile = self._tile(w) if len(x) <= MOST_ROWS and self.device.type == "cuda" else None
        if tile is not None and (tile, height(len(x))) not in self.too_large:
            try:
                return launch(x.contiguous(), w, tile)
            except OutOfResources:
                self.too_large.add((tile, height(len(x))))
        return x @ w.T

    def _tile(self, w: torch.Tensor) -> Any:
        """The fastest for such a matrix at 16 rows; None where torch's own product is."""
        shape = (w.shape[0], w.shape[1])
        if shape not in self.tiles:
            x = torch.randn(16, w.shape[1], dtype=w.dtype, device=w.device)
            # More than the device's cache holds, so that each product reads from memory as it does in a step.
            copies = -(-COLD_BYTES // (w.numel() * w.element_size()))
            matrices = [w, *(w.clone() for _ in range(min(copies, 32) - 1))]
            took = {None: self._ms(lambda m: x @ m.T, matrices)}
            for tile in TILES:
                with contextlib.suppress(OutOfResources):
                    took[tile] = self._ms(lambda m, tile=tile: launch(x, m, tile), matrices)
            self.tiles[shape] = min(took, key=lambda t: took[t])
        return self.tiles[shape]

    @staticmethod
    def _ms(run: Any, matrices: List[torch.Tensor], turns: int = 4) -> float:
        """Of one product; launched as a graph, since on its own the host's part would be longer than the device's."""
        for m in matrices:
            run(m)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(turns):
                for m in matrices:
                    run(m)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        graph.replay()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / (turns * len(matrices))
