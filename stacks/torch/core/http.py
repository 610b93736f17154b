"""HTTP/1.1 on a unix socket: keep-alive, bodies by Content-Length, answers whole or as server-sent events in chunks."""

import asyncio
import contextlib
import json
from typing import Any, AsyncGenerator, Awaitable, Callable, Optional, Union

MAX_HEAD = 64 << 10
MAX_BODY = 64 << 20
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large", 500: "Internal Server Error"}


class Answer:
    """A status with an object, or with a stream of events (objects, or a string that is sent as it is)."""

    def __init__(self, status: int, body: Union[Any, AsyncGenerator[Any, None]], stream: bool = False) -> None:
        self.status, self.body, self.stream = status, body, stream


Handler = Callable[[str, str, bytes, asyncio.Event], Awaitable[Answer]]


async def serve(path: str, handler: Handler) -> asyncio.AbstractServer:
    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await one_request(reader, writer, handler):
                    pass
        finally:
            # Also where a stream's step failed: before Python 3.12 nobody else would.
            writer.close()

    return await asyncio.start_unix_server(connection, path, limit=MAX_HEAD, backlog=128)


async def one_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> bool:
    """Whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3:
        return False
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY or "transfer-encoding" in headers:
        send(writer, 413, {"error": {"message": "a body has a Content-Length of 64 MiB at the most", "type": "invalid_request_error", "param": None}})
        return False
    body = await reader.readexactly(int(length))
    gone = asyncio.Event()
    watch = asyncio.ensure_future(hang_up(reader, gone))
    try:
        answer = await handler(words[0], words[1].partition("?")[0], body, gone)
        if answer.stream:
            await send_events(writer, answer.body, gone)
        elif not gone.is_set():
            send(writer, answer.status, answer.body)
            await writer.drain()
    finally:
        gone.set()
        watch.cancel()
    return headers.get("connection", "").lower() != "close" and not reader.at_eof()


async def hang_up(reader: asyncio.StreamReader, gone: asyncio.Event) -> None:
    """Sets `gone` when the client closes; what it sends meanwhile stays unread (nobody pipelines here)."""
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.02)
    gone.set()


def send(writer: asyncio.StreamWriter, status: int, body: Any) -> None:
    data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)


async def send_events(writer: asyncio.StreamWriter, events: AsyncGenerator[Any, None], gone: asyncio.Event) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n")
    try:
        async for event in events:
            if gone.is_set():
                return
            text: str = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, allow_nan=False)
            data = f"data: {text}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
    finally:
        # Else a client that hangs up is computed for until its generator is collected.
        await events.aclose()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


class BadJson(ValueError):
    pass


def parse_json(body: bytes) -> Any:
    """Strict JSON: no key twice, no number beyond a double, no lone surrogate. Raises BadJson "not JSON: … at offset N"."""

    def fail(what: str, near: Optional[str] = None) -> None:
        raise BadJson(f"not JSON: {what} at offset {max(0, text.find(near)) if near else 0}")

    def pairs(items: list) -> dict:
        keys = [key for key, _ in items]
        for key in keys:
            if keys.count(key) > 1:
                fail(f"the key {key!r} twice", f'"{key}"')
        return dict(items)

    def number(word: str) -> float:
        value = float(word)
        if value in (float("inf"), float("-inf")):
            fail("a number too large", word)
        return value

    text = ""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_constant=lambda word: fail(f"{word} is no value", word))
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except BadJson:
        raise
    except json.JSONDecodeError as error:
        raise BadJson(f"not JSON: {error.msg} at offset {error.pos}") from None
    except (UnicodeError, RecursionError, ValueError) as error:
        raise BadJson(f"not JSON: {type(error).__name__} at offset 0") from None
