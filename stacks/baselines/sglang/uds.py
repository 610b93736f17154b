"""Runs a server that listens on TCP only, and carries bytes between a unix socket and its port: uds.py SOCKET COMMAND…, with "{port}" in the command.

In a sandbox without network the port is on a loopback of its own. Nothing is read or changed on the way.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(path: str, command: list[str]) -> int:
    port = free_port()
    child = await asyncio.create_subprocess_exec(*[word.replace("{port}", str(port)) for word in command])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # not listening yet: whoever asks for /health asks again
            writer.close()
            return
        # A client that hangs up must be seen by the engine, and its end by the client.
        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_unix_server(serve, path)
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, child.terminate)
    code = await child.wait()
    server.close()
    return code


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: uds.py SOCKET COMMAND…")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(sys.argv[1])
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
