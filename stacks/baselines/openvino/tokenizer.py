"""SmolLM's tokenizer from the GGUF's own metadata: byte-level BPE, every digit a word of its own, ChatML.

OpenVINO GenAI brings a tokenizer too, but it reads special tokens inside a user's text ("<|im_end|>") as special ones; the contract forbids
that, and a baseline that reads another prompt than the candidate can't be compared with it.
"""
import codecs
import functools
import re
import struct
import sys
import unicodedata

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
NORMAL = 1  # token_type of text; every other type shows no text


def read_metadata(path):
    """The key-value part of a GGUF file (v2, v3) as a dict. Raises ValueError where the file is none."""
    with open(path, "rb") as f:
        def number(code):
            return struct.unpack("<" + code, f.read(struct.calcsize("<" + code)))[0]

        def value(kind):
            if kind == _STRING:
                return f.read(number("Q")).decode("utf-8", "replace")
            if kind == _ARRAY:
                inner, count = number("I"), number("Q")
                if inner in _SCALARS:
                    layout = f"<{count}{_SCALARS[inner]}"
                    return list(struct.unpack(layout, f.read(struct.calcsize(layout))))
                return [value(inner) for _ in range(count)]
            if kind not in _SCALARS:
                raise ValueError(f"{path}: metadata of unknown type {kind}")
            return number(_SCALARS[kind])

        if f.read(4) != b"GGUF" or number("I") not in (2, 3):
            raise ValueError(f"{path} is not a GGUF file of version 2 or 3")
        _tensors, keys = number("Q"), number("Q")
        return {value(_STRING): value(number("I")) for _ in range(keys)}


def _byte_characters():
    """GPT-2 writes bytes as characters: printable Latin-1 as itself, the 68 others as U+0100, U+0101, …"""
    shown = [b for b in range(256) if 32 < b < 127 or (b > 160 and b != 173)]
    hidden = [b for b in range(256) if b not in set(shown)]
    return {**{b: chr(b) for b in shown}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


@functools.lru_cache(maxsize=1)
def _word_pattern():
    """Python's re knows no \\p{L}: its ranges are written out, from this Python's Unicode tables."""
    ranges = {"L": [], "N": []}
    for code in range(sys.maxunicode + 1):
        kind = unicodedata.category(chr(code))[0]
        if kind in ranges:
            if ranges[kind] and ranges[kind][-1][1] == code - 1:
                ranges[kind][-1][1] = code
            else:
                ranges[kind].append([code, code])
    letter, digit = ("".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges[k]) for k in "LN")
    space = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return re.compile(
        f"[{digit}]|'(?:s|t|re|ve|m|ll|d)| ?[{letter}]+| ?[^{space}{letter}{digit}]+|[{space}]+(?=[{digit}]|\\Z)|[{space}]+(?![^{space}])|[{space}]+"
    )


class Tokenizer:
    """eos: the id that ends an answer; context: positions that the model was trained for."""

    def __init__(self, path):
        data = read_metadata(path)
        model, pre = data.get("tokenizer.ggml.model"), data.get("tokenizer.ggml.pre")
        if (model, pre) != ("gpt2", "smollm"):
            raise ValueError(f"{path}: its tokenizer is '{model}' with pre '{pre}'; only gpt2 with pre smollm is served")
        tokens = data["tokenizer.ggml.tokens"]
        types = data.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
        characters = _byte_characters()
        to_byte = {c: b for b, c in characters.items()}
        self._ids = {t: i for i, t in enumerate(tokens)}
        self._byte_ids = [self._ids.get(characters[b]) for b in range(256)]
        self._texts = [bytes(to_byte[c] for c in t) if kind == NORMAL else b"" for t, kind in zip(tokens, types)]
        self._merges = {}
        for rank, merge in enumerate(data["tokenizer.ggml.merges"]):
            left, right = merge.split(" ")
            self._merges[self._ids[left], self._ids[right]] = (rank, self._ids[left + right])
        self._start, self._end = self._ids["<|im_start|>"], self._ids["<|im_end|>"]
        self.eos = data["tokenizer.ggml.eos_token_id"]
        self.context = data[data["general.architecture"] + ".context_length"]
        self.size = len(tokens)
        self._word = functools.lru_cache(maxsize=65536)(self._encode_word)
        _word_pattern()

    def _encode_word(self, word):
        ids = [i for i in (self._byte_ids[b] for b in word.encode("utf-8", "surrogatepass")) if i is not None]
        while len(ids) > 1:
            found = [(self._merges[pair], at) for at, pair in enumerate(zip(ids, ids[1:])) if pair in self._merges]
            if not found:
                break
            (_, merged), at = min(found)
            ids[at : at + 2] = [merged]
        return tuple(ids)

    def encode(self, text):
        """Ids of a text; special tokens inside it are plain text."""
        return [i for word in _word_pattern().findall(text) for i in self._word(word)]

    def chat(self, messages):
        """Ids of a conversation, ready for the assistant's answer; the default system prompt is put in front where there is none."""
        if not messages or messages[0]["role"] != "system":
            messages = [{"role": "system", "content": DEFAULT_SYSTEM}, *messages]
        ids, newline = [], self.encode("\n")
        for m in messages:
            ids += [self._start, *self.encode(f"{m['role']}\n{m['content']}"), self._end, *newline]
        return [*ids, self._start, *self.encode("assistant\n")]

    def text_of(self, token):
        """The bytes that a token stands for: maybe only a part of a character, none for a control token."""
        return self._texts[token]

    @staticmethod
    def decoder():
        """An incremental decoder from such bytes to text; bytes that are no UTF-8 become U+FFFD."""
        return codecs.getincrementaldecoder("utf-8")("replace")
