"""What a request may say, and how its answer reads: OpenAI's shapes, and `token_ids` in every chunk. Knows no socket and no engine."""
import json
import time
import uuid

COMMON = {"model", "stream", "max_tokens", "stop", "temperature", "top_p", "seed", "ignore_eos", "stream_options", "n", "prediction"}
CHAT = COMMON | {"messages", "max_completion_tokens"}
COMPLETIONS = COMMON | {"prompt", "logprobs"}
_quoted = json.encoder.encode_basestring_ascii  # what json.dumps() does to a string, without its detours: this runs once a token
MAX_TOKENS = 16  # OpenAI's default of /v1/completions; a chat may fill the context


class BadRequest(Exception):
    """Answered with 400; `param` names the field."""

    def __init__(self, message, param=None):
        super().__init__(message)
        self.param = param


def error_body(message, param=None, kind="invalid_request_error"):
    return {"error": {"message": message, "type": kind, "param": param}}


def _number(body, field, default, low, high, whole=False):
    value = body.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
        raise BadRequest(f"{field} must be {'an integer' if whole else 'a number'} from {low} to {high}", field)
    return value


def _flag(body, field):
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{field} must be true or false", field)
    return bool(value)


def _stops(body):
    stop = body.get("stop")
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > 16 or not all(isinstance(s, str) and s for s in stops):
        raise BadRequest("stop must be a string or a list of at most 16 strings, none empty", "stop")
    return stops


class Ask:
    """One generation, checked. Raises BadRequest for a field that is not served or a value out of bounds."""

    def __init__(self, body, chat, tokenizer):
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        for field in body:
            if field not in (CHAT if chat else COMPLETIONS):
                raise BadRequest(f"{field} is not served by this stack", field)
        self.chat = chat
        self.stream = _flag(body, "stream")
        self.ignore_eos = _flag(body, "ignore_eos")
        self.stops = _stops(body)
        self.temperature = _number(body, "temperature", 1.0, 0, 2)
        self.top_p = _number(body, "top_p", 1.0, 0, 1)
        self.seed = _number(body, "seed", None, 0, 2**63 - 1, whole=True)
        _number(body, "n", 1, 1, 1, whole=True)
        self.logprobs = _number(body, "logprobs", None, 0, 20, whole=True)
        if self.logprobs is not None and (self.logprobs > 1 or self.temperature != 0):
            raise BadRequest("logprobs is served up to 1 and at temperature 0, where this engine tells it; ask /v1/score for others", "logprobs")
        self.prompt = _chat_ids(body, tokenizer) if chat else _prompt_ids(body, tokenizer)
        room = tokenizer.context - len(self.prompt)
        field = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        self.max_tokens = _number(body, field, max(room, 1) if chat else MAX_TOKENS, 1, 2**31, whole=True)
        if self.max_tokens > room:
            raise BadRequest(f"{len(self.prompt)} prompt tokens and {field} {self.max_tokens} exceed the context of {tokenizer.context}", field)
        options = body.get("stream_options")
        if options is not None and (not isinstance(options, dict) or set(options) - {"include_usage"}):
            raise BadRequest("stream_options may hold include_usage only", "stream_options")
        self.include_usage = _flag(options or {}, "include_usage")


def _chat_ids(body, tokenizer):
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message", "messages")
    for m in messages:
        if not isinstance(m, dict) or set(m) != {"role", "content"} or not all(isinstance(v, str) for v in m.values()):
            raise BadRequest("messages must be objects of role and content, both strings", "messages")
        if m["role"] not in ("system", "user", "assistant"):
            raise BadRequest("messages: role must be system, user or assistant", "messages")
    return tokenizer.chat(messages)


def _prompt_ids(body, tokenizer):
    prompt = body.get("prompt")
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    return token_ids(ids, tokenizer.size, "prompt")


def token_ids(ids, size, field):
    """The ids themselves where they are a list of at least one id of the vocabulary; BadRequest otherwise."""
    if not isinstance(ids, list) or not ids or not all(type(i) is int and 0 <= i < size for i in ids):
        raise BadRequest(f"{field} must hold at least one token, as text or as ids from 0 to {size - 1}", field)
    return ids


class Answer:
    """The answer to an Ask: takes tokens as the engine decides them, gives the bytes of events (streamed) or of one object (whole)."""

    def __init__(self, ask, tokenizer, model):
        self.ask, self.finish = ask, None
        self._tokenizer, self._decoder = tokenizer, tokenizer.decoder()
        self._held, self._shown, self._role = "", [], '"role":"assistant",' if ask.chat else ""
        self.ids, self._logprobs = [], []
        kind = ("chat.completion" + (".chunk" if ask.stream else "")) if ask.chat else "text_completion"
        self._head = json.dumps({"id": f"cmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model})[:-1]

    def push(self, token, logprob):
        """One more token; returns its event (b"" where nothing is streamed). Sets `finish` at a stop string or the end of the text."""
        if token == self._tokenizer.eos and not self.ask.ignore_eos:
            return self.end("stop")
        self.ids.append(token)
        self._logprobs.append(logprob)
        self._held += self._decoder.decode(self._tokenizer.text_of(token))
        event = self._event(self._release(), [token], [logprob])
        return event + self.end("stop") if self.finish else event

    def end(self, finish):
        """No more tokens: the last events. Text that was held back comes out, unless a stop string cut it off."""
        text = "" if self.finish else self._held + self._decoder.decode(b"", True)
        self.finish = finish
        self._shown.append(text)
        if not self.ask.stream:
            return b""
        usage = self._sse(f'{self._head},"choices":[],"usage":{json.dumps(self._usage())}}}') if self.ask.include_usage else b""
        return self._event_of(text, [], [], f'"{finish}"') + usage + self._sse("[DONE]")

    def _release(self):
        """Takes from the held text what no stop string can still begin in."""
        found = [at for at in (self._held.find(s) for s in self.ask.stops) if at >= 0]
        if found:
            text, self._held, self.finish = self._held[: min(found)], "", "stop"
            return text
        keep = max((n for s in self.ask.stops for n in range(1, len(s)) if self._held.endswith(s[:n])), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text

    def _event(self, text, ids, logprobs):
        self._shown.append(text)
        return self._event_of(text, ids, logprobs, "null") if self.ask.stream else b""

    def _event_of(self, text, ids, logprobs, finish):
        shown = _quoted(text)
        content = f'"delta":{{{self._role}"content":{shown}}}' if self.ask.chat else f'"text":{shown}'
        self._role = ""
        if self.ask.logprobs is not None:
            content += f',"logprobs":{json.dumps(self._logprobs_of(ids, logprobs))}'
        return self._sse(f'{self._head},"choices":[{{"index":0,{content},"token_ids":{ids},"finish_reason":{finish}}}]}}')

    @staticmethod
    def _sse(data):
        line = f"data: {data}\n\n".encode()
        return b"%x\r\n%s\r\n" % (len(line), line)

    def _logprobs_of(self, ids, logprobs):
        tops = [{str(i): p} if self.ask.logprobs else {} for i, p in zip(ids, logprobs)]
        tokens = [self._tokenizer.text_of(i).decode("utf-8", "replace") for i in ids]
        return {"tokens": tokens, "token_ids": ids, "token_logprobs": logprobs, "top_logprobs": tops}

    def _usage(self):
        prompt, completion = len(self.ask.prompt), len(self.ids)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def whole(self):
        """The JSON body of an answer that is not streamed."""
        text = "".join(self._shown)
        choice = {"index": 0, **({"message": {"role": "assistant", "content": text}} if self.ask.chat else {"text": text})}
        choice |= {"token_ids": self.ids, "finish_reason": self.finish}
        if self.ask.logprobs is not None:
            choice["logprobs"] = self._logprobs_of(self.ids, self._logprobs)
        return {**json.loads(self._head + "}"), "choices": [choice], "usage": self._usage()}
