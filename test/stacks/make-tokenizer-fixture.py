"""Writes tokenizer-fixture.json.gz: 10,500 strings with a digest of the ids that Hugging Face's `tokenizers` gives them, from the GGUF's vocabulary and merges.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install tokenizers==0.23.3
    /tmp/v/bin/python test/stacks/make-tokenizer-fixture.py MODEL.gguf [MORE] > test/stacks/tokenizer-fixture.json.gz

MORE strings beyond 10,500 make a bigger one, for a check by hand. SmolLM's tokenizer.json: no normaliser, Digits(individual_digits) then
ByteLevel(no prefix space, GPT-2's pattern), BPE without an unknown token. The digest, the first six hexadecimal digits of the SHA-1 of
the ids joined by commas, keeps the file small.
"""

import gzip
import hashlib
import json
import random
import struct
import sys
import unicodedata

from tokenizers import Tokenizer, models, pre_tokenizers

SCRIPTS = [
    (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F),
    (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x7BF), (0x900, 0x97F), (0x980, 0xDFF), (0xE00, 0xEFF), (0xF00, 0xFFF),
    (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x167F), (0x1680, 0x17FF), (0x1800, 0x18AF),
    (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20CF), (0x2100, 0x218F), (0x2190, 0x2BFF), (0x3000, 0x303F), (0x3040, 0x30FF),
    (0x3100, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF), (0xF900, 0xFAFF),
    (0xFB00, 0xFDFF), (0xFE00, 0xFFFD), (0x10000, 0x10FFF), (0x11000, 0x11FFF), (0x12000, 0x16FFF), (0x1B000, 0x1BCFF),
    (0x1D100, 0x1D7FF), (0x1E800, 0x1F0FF), (0x1F100, 0x1F9FF), (0x20000, 0x2FA1F), (0xE0000, 0xE01EF),
]  # fmt: skip
WORDS = """the of model token don't we're I'll it's they've I'd I'm 'tis 'S 's'' naïve café Straße ÅNGSTRÖM здравствуй мир 你好 世界 こんにちは
안녕하세요 สวัสดี नमस्ते مرحبا שלום Γειά ქართული հայերեն አማርኛ def return self.value() != None x_1 3.14159 1,000,000 ½ ² Ⅷ ٣ 100% C++ #include
<stdio.h> {} [] () => && || // /* */ \\n \\t "quoted" `code` https://example.org/a?b=c&d=e 😀 👩‍👩‍👧‍👦 🇫🇷 e\u0301 <|im_end|> <|endoftext|> HELLO hello
HeLLo antidisestablishmentarianism aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa for(int i=0;i<n;++i) 0x7fff 192.168.0.1 2026-11-24T05:46:00Z
================ ---------------- ................ ######## !!!???""".split()
GAPS = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\t\t", "\r\n", "", " \n ", "\n    ", "\u00a0", "\u0085", "\u2028", "\u3000", "\x1c", "\x0b", "\ufeff", "\u200b"]


def strings(path: str) -> tuple[list[str], list[str]]:
    """The file's lists tokenizer.ggml.tokens and .merges."""
    data, sizes = open(path, "rb").read(), {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    lists, at = {}, 24

    def take(form: str):
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, data, at - struct.calcsize(form))[0]

    def text() -> str:
        nonlocal at
        length = take("<Q")
        at += length
        return data[at - length : at].decode()

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key, kind = text(), take("<I")
        if kind == 8:
            text()
        elif kind == 9:
            kind, count = take("<I"), take("<Q")
            if kind == 8:
                lists[key] = [text() for _ in range(count)]
            else:
                at += count * sizes[kind]
        else:
            at += sizes[kind]
    return lists["tokenizer.ggml.tokens"], lists["tokenizer.ggml.merges"]


def character(rng: random.Random, script: tuple[int, int]) -> str:
    return chr(rng.randint(*script))


def sample(rng: random.Random, decode) -> str:
    kind = rng.random()
    if kind < 0.3:
        return "".join(w + rng.choice(GAPS) for w in rng.choices(WORDS, k=rng.randint(1, 12)))
    if kind < 0.55:  # words of one script or two, as text has them
        scripts = rng.choices(SCRIPTS, k=rng.choice([1, 1, 2]))
        words = ["".join(character(rng, rng.choice(scripts)) for _ in range(rng.randint(1, 6))) for _ in range(rng.randint(1, 4))]
        return "".join(w + rng.choice(GAPS) for w in words)
    if kind < 0.65:  # any characters at all
        return "".join(character(rng, rng.choice(SCRIPTS)) for _ in range(rng.randint(1, 10)))
    if kind < 0.72:  # whitespace runs
        return "".join(rng.choice(GAPS + ["a", "1", "."]) * rng.randint(1, 3) for _ in range(rng.randint(1, 10)))
    if kind < 0.82:  # digits, signs, apostrophes
        return "".join(rng.choice(" \n\tabcdefgh0123456789'stre.,;:-_()") for _ in range(rng.randint(1, 40)))
    if kind < 0.9:  # random bytes, read as UTF-8
        return rng.randbytes(rng.randint(1, 24)).decode("utf-8", "replace")
    return decode([rng.randint(17, 49151) for _ in range(rng.randint(1, 10))])


def main() -> None:
    tokens, merges = strings(sys.argv[1])
    hf = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    hf.pre_tokenizer = pre_tokenizers.Sequence(parts)
    inverse = byte_of_character()
    rng = random.Random(20261124)

    def decode(ids: list[int]) -> str:
        return bytes(inverse[c] for i in ids for c in tokens[i]).decode("utf-8", "replace")

    rows, count = [], 0
    for _ in range(10_500 + (int(sys.argv[2]) if len(sys.argv) > 2 else 0)):
        text = sample(rng, decode)
        ids = hf.encode(text).ids
        rows.append([text, hashlib.sha1(",".join(map(str, ids)).encode()).hexdigest()[:6]])
        count += len(ids)
    groups = len({unicodedata.category(c) for text, _ in rows for c in text})
    print(f"{len(rows)} strings, {count} ids, {groups} general categories", file=sys.stderr)
    packed = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    sys.stdout.buffer.write(gzip.compress(packed, 9, mtime=0))


def byte_of_character() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


main()
