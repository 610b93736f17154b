"""python3 let-go.py STACK MODEL: what a request holds is free when it ends, without Python's collector of cycles, also where a step fails. Prints "ok"."""

import asyncio
import gc
import json
import os
import sys
from typing import Any, Dict

sys.path.insert(0, sys.argv[1])

from core.api import Api  # noqa: E402
from core.backend import Backend  # noqa: E402
from core.engine import Engine  # noqa: E402
from core.http import serve  # noqa: E402
from core.text import Text  # noqa: E402

gc.disable()
text = Text(sys.argv[2])
engine = Engine(lambda: Backend(sys.argv[2], 1), text.eos)
api = Api(engine, text, "tiny")
slots = engine.backend.attention
CLIENTS = 4


def body(tokens: int, **more: Any) -> Dict[str, Any]:
    return {"prompt": [3, 9, 11], "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more}


async def ask(path: str, given: Dict[str, Any]) -> int:
    return (await api.handle("POST", path, json.dumps(given).encode(), asyncio.Event())).status


async def main(socket: str) -> None:
    for _ in range(20):
        assert await asyncio.gather(*(ask("/v1/completions", body(4)) for _ in range(CLIENTS))) == [200] * CLIENTS
        assert await ask("/v1/score", {"sequences": [[5, 6]], "query": [[[1], [2]]]}) == 200
    assert len(slots.taken) <= CLIENTS + 1, f"{len(slots.taken)} slots are taken after {CLIENTS} clients' requests"
    assert slots.generation == 0, f"the cache grew to {tuple(slots.kv.shape)}"

    server = await serve(socket, api.handle)
    reader, writer = await asyncio.open_unix_connection(socket)
    sent = json.dumps(body(2000, stream=True)).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(sent), sent))
    await reader.readuntil(b"data: ")
    forward = engine.backend.forward

    def fail(_parts: Any) -> Any:
        raise MemoryError("no memory")

    engine.backend.forward = fail
    rest = await asyncio.wait_for(reader.read(), 10)
    assert not rest.endswith(b"0\r\n\r\n"), "a stream that failed looks as if it were whole"
    for _ in range(20):
        assert await ask("/v1/completions", body(4)) == 500
        assert await ask("/v1/score", {"sequences": [[5, 6]], "query": [[[1], [2]]]}) == 500
    engine.backend.forward = forward
    assert await ask("/v1/completions", body(4)) == 200
    assert len(slots.taken) <= 1, f"{len(slots.taken)} slots are taken after steps that failed"
    server.close()
    print("ok", flush=True)
    os._exit(0)


asyncio.run(main(sys.argv[3]))
