"""A checkpoint's tensors, read without a library."""

import glob
import json
import mmap
import os
import struct
from typing import Callable, Dict, List, Optional

import torch

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_file(path: str) -> Dict[str, torch.Tensor]:
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


#: Of a tensor by its name, what is wanted of it; None: nothing.
Share = Callable[[str, torch.Tensor], Optional[torch.Tensor]]


class Weights(Dict[str, torch.Tensor]):
    """All tensors of a folder by name, or a share of each, on the device, in one type. A name that is not there raises ValueError."""

    def __init__(self, folder: str, device: torch.device, kind: torch.dtype, share: Optional[Share] = None) -> None:
        super().__init__()
        for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
            for name, tensor in read_file(path).items():
                wanted = tensor if share is None else share(name, tensor)
                if wanted is not None:
                    self[name] = wanted.to(device=device, dtype=kind)

    def join(self, names: List[str], name: str) -> None:
        """One matrix, and one bias, of several whose products stand one after another; the single ones are forgotten."""
        for kind in ("weight", "bias"):
            parts = [self.pop(f"{n}.{kind}", None) for n in names]
            if all(part is not None for part in parts):
                self[f"{name}.{kind}"] = torch.cat(parts)

    def __missing__(self, name: str) -> torch.Tensor:
        raise ValueError(f"the checkpoint has no tensor {name}")
