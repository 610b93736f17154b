"""Command line: loads the checkpoint, then serves it on a unix socket until SIGTERM."""

import argparse
import asyncio
import functools
import os
import signal
import sys

from core.api import Api
from core.backend import Backend
from core.engine import Engine
from core.http import serve
from core.text import Text


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--socket", required=True)
    options.add_argument("--model", required=True, help="a folder with config.json, tokenizer.json and *.safetensors")
    options.add_argument("--cpus", default="", help="processors it may use, such as 0,1")
    options.add_argument("--devices", type=int, default=1, help="over how many, of those that it sees, the model is spread; default 1")
    given = options.parse_args()
    threads = len(given.cpus.split(",")) if given.cpus else None
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        text = Text(given.model)
        load = functools.partial(Backend, given.model, threads)
        if given.devices != 1:
            # Here, since this thread lives as long as the process.
            from core.ranks import Ranks

            load = Ranks(given.model, given.devices, threads).load
        engine = Engine(load, text.eos)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{given.model}: {error}")
    print(f"serving {given.model} on {given.devices} × {engine.backend.device}", file=sys.stderr, flush=True)
    asyncio.run(run(given.socket, Api(engine, text, os.path.basename(os.path.normpath(given.model)))))


async def run(path: str, api: Api) -> None:
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)
    server = await serve(path, api.handle)
    await stop.wait()
    server.close()
    # Threads that compute must not keep the process alive.
    os._exit(0)
