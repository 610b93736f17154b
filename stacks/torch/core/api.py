"""The candidate's contract: reads a request, refuses what is not served by name, and writes answers as JSON or events."""

import asyncio
import random
import time
from typing import Any, AsyncGenerator, Dict, List, Optional

from core.engine import Engine, Request
from core.http import Answer, BadJson, parse_json
from core.text import Growing, Text

GET = ("/health", "/v1/models")
CHAT, COMPLETIONS, SCORE = "/v1/chat/completions", "/v1/completions", "/v1/score"
ROLES = ("system", "user", "assistant")


class Refusal(Exception):
    def __init__(self, param: Optional[str], message: str, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status


class ComputeError(Exception):
    """A step of the model failed; the request's answer is lost, the server goes on."""


def refuse(param: str, why: str) -> None:
    raise Refusal(param, f"'{param}' {why}")


def expect(value: Any, kind: type, name: str) -> Any:
    words = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    if not isinstance(value, kind):
        refuse(name, f"must be {words[kind]}")
    return value


def number(value: Any, name: str, least: float, most: float, whole: bool) -> Any:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
    if not good or (whole and value != int(value)):
        refuse(name, f"must be {'an integer' if whole else 'a number'} from {least} to {most}")
    return int(value) if whole else float(value)


def token_ids(value: Any, name: str, vocab: int) -> List[int]:
    return [number(item, name, 0, vocab - 1, True) for item in expect(value, list, name)]


def read_messages(value: Any) -> List[Dict[str, str]]:
    messages = []
    for i, message in enumerate(expect(value, list, "messages")):
        name = f"messages[{i}]"
        for key, said in expect(message, dict, name).items():
            if key not in ("role", "content"):
                refuse(f"{name}.{key}", "is not served")
            expect(said, str, f"{name}.{key}")
        if message.get("role") not in ROLES:
            refuse(f"{name}.role", "must be system, user or assistant")
        if "content" not in message:
            refuse(f"{name}.content", "is missing")
        messages.append(message)
    if not messages:
        refuse("messages", "must not be empty")
    return messages


class Api:
    def __init__(self, engine: Engine, text: Text, model: str) -> None:
        self.engine, self.text, self.model = engine, text, model
        self.count = 0

    async def handle(self, method: str, path: str, body: bytes, gone: asyncio.Event) -> Answer:
        try:
            if path not in (*GET, CHAT, COMPLETIONS, SCORE):
                raise Refusal(None, f"There is no {path}", 404)
            if method != ("GET" if path in GET else "POST"):
                raise Refusal(None, f"{path} does not answer {method}", 405)
            if path == "/health":
                return Answer(200, {"status": "ok"})
            if path == "/v1/models":
                return Answer(200, {"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "vibeserve"}]})
            try:
                given = parse_json(body)
            except BadJson as error:
                raise Refusal(None, f"The body is {error}") from None
            if not isinstance(given, dict):
                raise Refusal(None, "The body must be a JSON object")
            if path == SCORE:
                return await self._score(given)
            generation = Generation(self, path == CHAT, given)
            if generation.stream:
                return Answer(200, generation.events(gone), stream=True)
            return Answer(200, await generation.whole(gone))
        except Refusal as r:
            return Answer(r.status, {"error": {"message": str(r), "type": "invalid_request_error", "param": r.param}})
        except ComputeError as error:
            return Answer(500, {"error": {"message": str(error), "type": "server_error", "param": None}})

    async def _score(self, given: Dict[str, Any]) -> Answer:
        for key in given:
            if key not in ("model", "sequences", "query"):
                refuse(key, "is not served")
        for key in ("sequences", "query"):
            if key not in given:
                refuse(key, "is missing")
            expect(given[key], list, key)
        sequences = [token_ids(s, "sequences", self.text.vocab) for s in given["sequences"]]
        if any(not 1 <= len(s) <= self.text.context for s in sequences):
            refuse("sequences", "must hold 1 … context tokens each")
        if len(given["query"]) != len(sequences):
            refuse("query", "must have a list for each of sequences")
        query = []
        for asked, sequence in zip(given["query"], sequences):
            if len(expect(asked, list, "query")) != len(sequence):
                refuse("query", "must have a list for each token of sequences")
            query.append([token_ids(ids, "query", self.text.vocab) for ids in asked])
        loop = asyncio.get_running_loop()
        done: "asyncio.Future[Any]" = loop.create_future()
        self.engine.score(sequences, query, lambda result: loop.call_soon_threadsafe(done.set_result, result))
        result = await done
        if isinstance(result, Exception):
            raise ComputeError(str(result)) from result
        return Answer(200, {"logprobs": result})


class Generation:
    """One request for text and its answer."""

    def __init__(self, api: Api, chat: bool, given: Dict[str, Any]) -> None:
        self.api, self.chat = api, chat
        self.stream, self.usage_wanted, self.stops = False, False, []
        self.made = made = asyncio.Queue()  # type: asyncio.Queue[Any]
        loop = asyncio.get_running_loop()
        # No word of self: a request that its own emit leads back to is freed by the collector alone, long after its end.
        self.request = self._read(given, lambda item: loop.call_soon_threadsafe(made.put_nowait, item))
        self.tokens, self.named = 0, False
        self.held, self.growing = "", Growing(api.text)
        api.count += 1
        kind = "text_completion" if not chat else "chat.completion.chunk" if self.stream else "chat.completion"
        self.head = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{api.count}", "object": kind, "created": int(time.time()), "model": api.model}

    def _read(self, given: Dict[str, Any], emit: Any) -> Request:
        text, chat = self.api.text, self.chat
        prompt: List[int] = []
        request = Request([], emit)
        limit = None
        for key, v in given.items():
            if key == "prediction" or v is None:
                continue
            if key == "model":
                expect(v, str, key)
            elif key == "messages" and chat:
                try:
                    prompt = text.encode_chat(read_messages(v))
                except ValueError as error:
                    refuse(key, f"can't be served: {error}")
            elif key == "prompt" and not chat:
                prompt = text.encode(v) if isinstance(v, str) else token_ids(v, key, text.vocab)
            elif key in ("max_tokens", "max_completion_tokens"):
                limit = number(v, key, 1, text.context, True)
            elif key == "temperature":
                request.temperature = number(v, key, 0, 2, False)
            elif key == "top_p":
                request.top_p = number(v, key, 0, 1, False)
            elif key == "seed":
                # As a string, since a number's sign would be lost.
                request.random = random.Random(str(number(v, key, -(2**53), 2**53, True)))
            elif key == "n":
                number(v, key, 1, 1, True)
            elif key == "logprobs" and not chat:
                request.logprobs = number(v, key, 0, 20, True)
            elif key == "stream":
                self.stream = expect(v, bool, key)
            elif key == "ignore_eos":
                request.ignore_eos = expect(v, bool, key)
            elif key == "stream_options":
                for option, wanted in expect(v, dict, key).items():
                    if option != "include_usage":
                        refuse(f"{key}.{option}", "is not served")
                    self.usage_wanted = expect(wanted, bool, f"{key}.include_usage")
            elif key == "stop":
                self.stops = [expect(s, str, key) for s in (v if isinstance(v, list) else [v])]
                if "" in self.stops:
                    refuse(key, "must hold no empty string")
            else:
                refuse(key, "is not served")
        if "stream_options" in given and given["stream_options"] is not None and not self.stream:
            refuse("stream_options", "needs stream")
        if not prompt:
            refuse("messages" if chat else "prompt", "is missing, or holds no tokens")
        room = text.context - len(prompt)
        request.max_tokens = limit if limit is not None else max(room, 1) if chat else 16  # OpenAI's defaults
        if room < request.max_tokens:
            refuse("max_tokens", f"and the prompt's {len(prompt)} are more than the context's {text.context}")
        request.prompt, request.pending = prompt, list(prompt)
        return request

    async def steps(self, gone: asyncio.Event) -> AsyncGenerator[Dict[str, Any], None]:
        """What each token adds: {text, token_ids, logprobs, finish_reason}. Ends early, and stops the engine, when the client has gone."""
        self.api.engine.submit(self.request)
        leaving = asyncio.ensure_future(gone.wait())
        try:
            finish = None
            while finish is None:
                coming = asyncio.ensure_future(self.made.get())
                await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    return
                item = coming.result()
                if isinstance(item, Exception):
                    raise ComputeError(str(item)) from item
                token, said, finish = item
                new, stopped = self._text(token)
                finish = "stop" if stopped else finish
                if finish is not None and not stopped:
                    new += self.held + self.growing.end()
                yield {"text": new, "ids": [] if token is None else [token], "said": said, "finish": finish}
        finally:
            self.request.cancelled = True
            leaving.cancel()

    def _text(self, token: Optional[int]) -> "tuple[str, bool]":
        """Text that may be shown now, and whether a stop string was met; what may be the beginning of one is held back."""
        if token is None:
            return "", False
        self.tokens += 1
        self.held += self.growing.add(token)
        found = [at for at in (self.held.find(stop) for stop in self.stops) if at >= 0]
        if found:
            return self.held[: min(found)], True
        keep = 0
        for stop in self.stops:
            for n in range(min(len(stop) - 1, len(self.held)), keep, -1):
                if self.held.endswith(stop[:n]):
                    keep = n
                    break
        shown, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return shown, False

    def _choice(self, text: str, ids: List[int], said: List[Any], finish: Optional[str]) -> Dict[str, Any]:
        choice: Dict[str, Any] = {"index": 0}
        if not self.chat:
            choice["text"] = text
        else:
            role = {} if self.named else {"role": "assistant"}
            choice["delta" if self.stream else "message"] = {**role, "content": text}
            self.named = True
        choice["token_ids"] = ids
        if self.request.logprobs is not None:
            choice["logprobs"] = {
                "tokens": [self.api.text.token_text(t) for t in ids],
                "token_ids": ids,
                "token_logprobs": [s["logprob"] for s in said],
                "top_logprobs": [{str(k): v for k, v in s["top"].items()} for s in said],
            }
        return {**choice, "finish_reason": finish}

    def _usage(self) -> Dict[str, int]:
        prompt = len(self.request.prompt)
        return {"prompt_tokens": prompt, "completion_tokens": self.tokens, "total_tokens": prompt + self.tokens}

    async def whole(self, gone: asyncio.Event) -> Dict[str, Any]:
        steps = [step async for step in self.steps(gone)]
        ids, said = [t for s in steps for t in s["ids"]], [s["said"] for s in steps if s["said"] is not None]
        choice = self._choice("".join(s["text"] for s in steps), ids, said, steps[-1]["finish"] if steps else None)
        return {**self.head, "choices": [choice], "usage": self._usage()}

    async def events(self, gone: asyncio.Event) -> AsyncGenerator[Any, None]:
        steps = self.steps(gone)
        try:
            async for step in steps:
                said = [] if step["said"] is None else [step["said"]]
                yield {**self.head, "choices": [self._choice(step["text"], step["ids"], said, step["finish"])]}
        finally:
            await steps.aclose()
        if self.usage_wanted:
            yield {**self.head, "choices": [], "usage": self._usage()}
        yield "[DONE]"
