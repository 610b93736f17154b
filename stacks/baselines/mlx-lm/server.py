"""MLX-LM behind a unix socket, with token ids in its stream: mlx-lm's own server has neither ids nor ignore_eos, so nothing could be counted or compared.

One request after another, as `mlx_lm.generate` serves them. Answers 400 to what it does not serve.
"""

import argparse
import json
import os
import queue
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler

from mlx_lm import load
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_sampler

import mlx.core as mx

FIELDS = {"model", "prompt", "max_tokens", "temperature", "ignore_eos", "stream", "stream_options", "return_token_ids"}


class Engine:
    """Loads and computes on one thread, since what MLX makes belongs to the thread that made it. Requests are served in the order in which they came."""

    def __init__(self, folder: str, options: dict) -> None:
        self.folder, self.options = folder, options
        self.jobs: "queue.Queue" = queue.Queue()
        self.ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self.ready.wait()

    def _run(self) -> None:
        try:
            self.model, self.tokenizer = load(self.folder)
        except Exception as error:  # noqa: BLE001  without a model there is nothing to serve
            print(f"{self.folder}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        self.ready.set()
        while True:
            prompt, most, temperature, made, gone = self.jobs.get()
            for token, _ in generate_step(mx.array(prompt), self.model, max_tokens=most, sampler=make_sampler(temp=temperature), **self.options):
                made.put(int(token))
                if gone.is_set():
                    break
            made.put(None)

    def tokens(self, prompt: list, most: int, temperature: float, ignore_eos: bool):
        made: "queue.Queue" = queue.Queue()
        gone = threading.Event()
        self.jobs.put((prompt, most, temperature, made, gone))
        try:
            while (token := made.get()) is not None:
                if token in self.tokenizer.eos_token_ids and not ignore_eos:
                    return
                yield token
        finally:
            gone.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine

    def log_message(self, *_args: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/health" else 404, {"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        unknown = sorted(set(body) - FIELDS)
        if self.path != "/v1/completions" or unknown or not isinstance(body.get("prompt"), list) or body.get("stream") is not True:
            param = unknown[0] if unknown else "prompt"
            return self.answer(400, {"error": {"message": f"'{param}' is not served", "type": "invalid_request_error", "param": param}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        most, made = int(body.get("max_tokens", 16)), 0
        detokenizer = self.engine.tokenizer.detokenizer
        for token in self.engine.tokens(body["prompt"], most, float(body.get("temperature", 1)), bool(body.get("ignore_eos"))):
            made += 1
            detokenizer.add_token(token)
            if made == most:
                detokenizer.finalize()
            self.event({"choices": [{"index": 0, "text": detokenizer.last_segment, "token_ids": [token], "finish_reason": "length" if made == most else None}]})
        if made < most:
            detokenizer.finalize()
            self.event({"choices": [{"index": 0, "text": detokenizer.last_segment, "token_ids": [], "finish_reason": "stop"}]})
        prompt = len(body["prompt"])
        self.event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")
        return None

    def event(self, value: object) -> None:
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may leave at any time
            super().handle_error(request, client_address)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--socket", required=True)
    options.add_argument("--model", required=True)
    options.add_argument("--prefill-step-size", type=int)
    options.add_argument("--kv-bits", type=int)
    given = options.parse_args()
    if os.path.exists(given.socket):
        os.unlink(given.socket)
    Handler.engine = Engine(given.model, {k: v for k, v in (("prefill_step_size", given.prefill_step_size), ("kv_bits", given.kv_bits)) if v is not None})
    Server(given.socket, Handler).serve_forever()


if __name__ == "__main__":
    main()
