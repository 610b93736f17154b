"""Text and ids: the checkpoint's own tokenizer, its chat template, and text that grows id by id."""

import codecs
import json
import os
import re
from typing import Dict, List, Sequence, Union

from tokenizers import Tokenizer

Message = Dict[str, str]
#: A control token by its name, or text in which none is parsed.
Part = Union[str, List[str]]


def read_json(folder: str, name: str) -> dict:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Text:
    def __init__(self, folder: str) -> None:
        self.tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True
        config, generation = read_json(folder, "config.json"), read_json(folder, "generation_config.json")
        eos = generation.get("eos_token_id", config.get("eos_token_id"))
        self.eos = set(eos if isinstance(eos, list) else [] if eos is None else [eos])
        self.context = int(config["max_position_embeddings"])
        self.vocab = int(config["vocab_size"])
        template = read_json(folder, "tokenizer_config.json").get("chat_template") or ""
        if os.path.exists(os.path.join(folder, "chat_template.jinja")):
            with open(os.path.join(folder, "chat_template.jinja"), encoding="utf-8") as file:
                template = file.read()
        self.render = chat_format(self.tokenizer, str(template))
        raw = read_json(folder, "tokenizer.json")
        self.bytes_of = token_bytes(raw)

    def encode(self, text: str) -> List[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_chat(self, messages: Sequence[Message]) -> List[int]:
        ids: List[int] = []
        for part in self.render(messages):
            ids += [self.tokenizer.token_to_id(part[0])] if isinstance(part, list) else self.encode(part)
        return ids

    def token_text(self, token: int) -> str:
        return self.bytes_of.get(token, b"").decode("utf-8", "replace")


def chat_format(tokenizer: Tokenizer, template: str):
    """How a chat of this checkpoint reads: ChatML, or Llama 3's headers. Other templates are refused when a chat is asked for."""
    has = lambda *names: all(tokenizer.token_to_id(n) is not None for n in names)  # noqa: E731
    if has("<|im_start|>", "<|im_end|>"):
        # A default system message is text of the template itself; where the template inserts a message's content there is a quote in between.
        found = re.search(r"<\|im_start\|>system(?:\\n|\n)([^'\"{}<]+)<\|im_end\|>", template)
        default = found.group(1) if found else None

        def chatml(messages: Sequence[Message]) -> List[Part]:
            first = [] if messages[0]["role"] == "system" or default is None else [{"role": "system", "content": default}]
            parts: List[Part] = []
            for m in [*first, *messages]:
                parts += [["<|im_start|>"], f"{m['role']}\n{m['content']}", ["<|im_end|>"], "\n"]
            return [*parts, ["<|im_start|>"], "assistant\n"]

        return chatml
    if has("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"):
        dated = "Cutting Knowledge Date" in template

        def llama3(messages: Sequence[Message]) -> List[Part]:
            system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
            rest = messages[1:] if messages[0]["role"] == "system" else messages
            preamble = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n" if dated else ""
            parts: List[Part] = [["<|begin_of_text|>"]]
            turns = [{"role": "system", "content": preamble + system}, *rest] if dated or system else list(rest)
            for m in turns:
                content = m["content"] if m["role"] == "system" else m["content"].strip()
                parts += [["<|start_header_id|>"], m["role"], ["<|end_header_id|>"], f"\n\n{content}", ["<|eot_id|>"]]
            return [*parts, ["<|start_header_id|>"], "assistant", ["<|end_header_id|>"], "\n\n"]

        return llama3

    def unknown(_messages: Sequence[Message]) -> List[Part]:
        raise ValueError("the checkpoint's chat template is neither ChatML nor Llama 3's")

    return unknown


def token_bytes(raw: dict) -> Dict[int, bytes]:
    """UTF-8 of every token that stands for text; control tokens stand for none."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    byte_of = {chr(b): b for b in plain}
    byte_of.update({chr(256 + i): b for i, b in enumerate(others)})
    known = {}
    for token, index in raw["model"]["vocab"].items():
        known[index] = bytes(byte_of[c] for c in token) if all(c in byte_of for c in token) else token.encode("utf-8")
    for added in raw.get("added_tokens", []):
        known[added["id"]] = b"" if added["special"] else added["content"].encode("utf-8")
    return known


class Growing:
    """Text of ids as they come: a character appears when its last byte is there; what can never become one is U+FFFD."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        return self.decoder.decode(self.text.bytes_of.get(token, b""))

    def end(self) -> str:
        return self.decoder.decode(b"", final=True)
