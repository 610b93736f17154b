"""OpenVINO GenAI's continuous batching behind the candidate's HTTP contract, on a unix socket.

One thread does all: it takes requests, runs one step of the engine, writes what that step decided, and so on. A thread a connection would
wake once a token and fight the engine for two cores and for Python's lock; here a step costs one write a connection. What arrives during a
step waits for its end, as it would inside the engine.

    python server.py --socket S --model M.gguf --cpus 0,1 [--property KEY=VALUE]… [--scheduler key=value]…
"""
import argparse
import collections
import concurrent.futures
import json
import os
import selectors
import signal
import socket
import sys

from api import Answer, Ask, BadRequest, error_body
from connection import Connection
from engine import Engine
from tokenizer import Tokenizer

MODEL_NAME = "openvino-genai"
READ_BYTES = 256 * 1024
BACKLOG = 256


class Server:
    """Owns the listening socket, every connection, and the engine. `scorer` answers /v1/score; it is made when first asked."""

    def __init__(self, path, engine, tokenizer, make_scorer):
        self.engine, self.tokenizer, self._make_scorer, self._scorer = engine, tokenizer, make_scorer, None
        self._live = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._scored = collections.deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        if os.path.exists(path):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._deliver_scores)

    def run(self, running=lambda: True):
        while running():
            for key, events in self._selector.select(0 if self._live else None):
                if isinstance(key.data, Connection):
                    self._serve(key.data, events)
                else:
                    key.data()
            if self._live:
                self.engine.pipeline.step()
                for c in list(self._live):
                    self._collect(c)

    def stop(self):
        """Makes run() look at `running` again; from any thread."""
        self._wake_out.send(b"x")

    def _accept(self):
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, Connection(sock))

    def _serve(self, c, events):
        if events & selectors.EVENT_WRITE:
            self._flush(c)
        if events & selectors.EVENT_READ:
            try:
                data = c.sock.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                return self._drop(c)
            c.inbox += data
            self._next_request(c)

    def _next_request(self, c):
        while not c.busy and c.sock.fileno() >= 0:
            try:
                request = c.take_request()
            except BadRequest as bad:
                c.reply(400, error_body(str(bad)))
                c.closing = True
                return self._flush(c)
            if request is None:
                return self._flush(c) if c.outbox else None
            try:
                self._route(c, *request)
            except BadRequest as bad:
                c.reply(400, error_body(str(bad), bad.param))
            except RuntimeError as error:  # the engine's own refusal, such as a prompt longer than its scheduler takes
                c.reply(500, error_body(str(error), kind="server_error"))
            self._flush(c)

    def _route(self, c, method, path, body):
        post = {"/v1/chat/completions": True, "/v1/completions": False, "/v1/score": None}
        if method == "GET" and path == "/health":
            return c.reply(200, {"status": "ok"})
        if method == "GET" and path == "/v1/models":
            return c.reply(200, {"object": "list", "data": [{"id": MODEL_NAME, "object": "model", "owned_by": "openvino"}]})
        if path not in post or method != "POST":
            return c.reply(405 if path in post or path in ("/health", "/v1/models") else 404, error_body(f"no {method} {path} here"))
        try:
            body = json.loads(body)
        except ValueError:
            raise BadRequest("the body is not JSON") from None
        if post[path] is None:
            c.busy = True
            self._pool.submit(self._score, c, body)
            return None
        ask = Ask(body, post[path], self.tokenizer)
        c.answer, c.handle, c.busy = Answer(ask, self.tokenizer, MODEL_NAME), self.engine.add(ask, self.tokenizer.eos), True
        self._live[c] = None
        if ask.stream:
            c.outbox += b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    def _collect(self, c):
        tokens, finish = self.engine.tokens_of(c.handle)
        answer = c.answer
        for token, logprob in tokens:
            if answer.finish is None:
                c.outbox += answer.push(token, logprob)
        if finish == "failed" and answer.finish is None:
            return self._drop(c)
        if finish and answer.finish is None:
            c.outbox += answer.end(finish)
        if answer.finish is not None:
            if finish is None:
                c.handle.cancel()
            self._release(c)
            if answer.ask.stream:
                c.outbox += b"0\r\n\r\n"
            else:
                c.reply(200, answer.whole())
        self._flush(c)
        if answer.finish is not None:
            self._next_request(c)  # one that came in with the last

    def _release(self, c):
        self._live.pop(c, None)
        c.answer = c.handle = None
        c.busy = False

    def _score(self, c, body):
        try:
            self._scorer = self._scorer or self._make_scorer()
            result = (200, self._scorer.answer(body))
        except BadRequest as bad:
            result = (400, error_body(str(bad), bad.param))
        except Exception as error:  # whatever the engine throws is the answer; a thread's death would leave the client waiting
            result = (500, error_body(f"{type(error).__name__}: {error}", kind="server_error"))
        self._scored.append((c, *result))
        self.stop()

    def _deliver_scores(self):
        self._wake_in.recv(READ_BYTES)
        while self._scored:
            c, status, body = self._scored.popleft()
            if c.sock.fileno() >= 0:
                c.reply(status, body)
                c.busy = False
                self._flush(c)
                self._next_request(c)

    def _flush(self, c):
        try:
            while c.outbox:
                del c.outbox[: c.sock.send(c.outbox)]
        except BlockingIOError:
            pass
        except OSError:
            return self._drop(c)
        if c.closing and not c.outbox and not c.busy:
            return self._drop(c)
        if c.writing != bool(c.outbox):
            c.writing = bool(c.outbox)
            self._selector.modify(c.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if c.writing else 0), c)

    def _drop(self, c):
        """The client is gone, or can't be served on: its generation ends within the next step."""
        if c.sock.fileno() < 0:
            return
        if c.handle is not None:
            c.handle.cancel()
        self._release(c)
        self._selector.unregister(c.sock)
        c.sock.close()


def cpu_list(text):
    """ "0,2-3" → {0, 2, 3}."""
    spans = [part.split("-") for part in text.split(",")]
    return {cpu for span in spans for cpu in range(int(span[0]), int(span[-1]) + 1)}


def pairs(items):
    return dict(item.split("=", 1) for item in items)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--socket", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--cpus", type=cpu_list, default=None)
    p.add_argument("--property", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--scheduler", action="append", default=[], metavar="key=value")
    a = p.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if a.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, a.cpus)  # before OpenVINO is loaded: it counts the processors that it may use then

    def make_scorer():
        from score import Scorer

        return Scorer(a.model, pairs(a.property), tokenizer)

    tokenizer = Tokenizer(a.model)
    Server(a.socket, Engine(a.model, pairs(a.property), pairs(a.scheduler)), tokenizer, make_scorer).run()


if __name__ == "__main__":
    sys.exit(main())
