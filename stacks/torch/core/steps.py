"""How long steps last, without a server around them: `PYTHONPATH=OUT python3 -m core.steps --model DIR` prints one JSON line. OUT is what build.py packed.

For looking into a stack on a device, never a Measurement: the tokens are not checked, and nobody waits for them.
"""

import argparse
import json
import time
from typing import Any, Callable, List

import torch

from core.backend import Backend
from core.ranks import Ranks

WARM_S = 2.0


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", required=True)
    options.add_argument("--sequences", type=int, default=16)
    options.add_argument("--at", type=int, default=200, help="positions that each sequence holds before the first step")
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--devices", type=int, default=1)
    given = options.parse_args()
    began = time.perf_counter()
    backend = Backend(given.model) if given.devices == 1 else Ranks(given.model, given.devices, None).load()
    loaded = time.perf_counter() - began
    caches = [backend.new_cache() for _ in range(given.sequences)]
    prompts = [milliseconds(backend, lambda c=c: prefill(backend, c, given.at)) for c in caches]
    tokens = [5] * given.sequences

    def step() -> None:
        nonlocal tokens
        tokens = backend.argmax(backend.forward([([t], c, 1) for t, c in zip(tokens, caches)]))

    # An idle device's clocks take a while to come up.
    warm_until = time.perf_counter() + WARM_S
    while time.perf_counter() < warm_until:
        step()
        for cache in caches:
            cache.length = min(cache.length, given.at + given.steps)
    for cache in caches:
        cache.length = given.at
    took = milliseconds(backend, lambda: [step() for _ in range(given.steps)]) / given.steps
    print(
        json.dumps(
            {
                "device": torch.cuda.get_device_name() if backend.device.type == "cuda" else str(backend.device),
                "devices": given.devices,
                "sequences": given.sequences,
                "positions": given.at + given.steps,
                "loadS": round(loaded, 2),
                "promptMs": round(min(prompts), 3),
                "stepMs": round(took, 3),
                "weightBytes": sum(w.numel() * w.element_size() for w in backend.weights.values()),
            }
        )
    )


def prefill(backend: Any, cache: Any, length: int) -> List[int]:
    return backend.argmax(backend.forward([([7 + i % 199 for i in range(length)], cache, 1)]))


def milliseconds(backend: Any, run: Callable[[], Any]) -> float:
    wait = torch.cuda.synchronize if backend.device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    run()
    wait()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
