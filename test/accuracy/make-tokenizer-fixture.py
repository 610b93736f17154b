"""Writes tokenizer-fixture.json: strings and the ids that Hugging Face's `tokenizers` gives them with the GGUF's vocabulary and merges.

    pip install tokenizers gguf
    python make-tokenizer-fixture.py MODEL.gguf COUNT > tokenizer-fixture.json

SmolLM's tokenizer.json: no normaliser; pre-tokenizers Digits(individual_digits) then ByteLevel(no prefix space, GPT-2's pattern); BPE without unknown token.
"""
import json
import random
import sys

import gguf
from tokenizers import Tokenizer, models, pre_tokenizers

reader = gguf.GGUFReader(sys.argv[1])
tokens = reader.fields["tokenizer.ggml.tokens"].contents()
merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
hf = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
hf.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])

rng = random.Random(20260)
WORDS = """the of model token don't we're I'll it's 'tis naïve café Straße ÅNGSTRÖM здравствуй мир 你好 世界 こんにちは 안녕하세요 สวัสดี नमस्ते مرحبا שלום
def return self.value() != None x_1 3.14159 1,000,000 ½ ² Ⅷ ٣ 100% C++ #include <stdio.h> {} [] () => && || // /* */ \\n \\t "quoted" `code` https://example.org/a?b=c&d=e
😀 👩‍👩‍👧‍👦 🇫🇷 e\u0301 \ufeff \u200b \u00a0 \u2028 \u0085 \u3000 <|im_end|> <|endoftext|> HELLO hello HeLLo antidisestablishmentarianism aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa""".split(" ")
GAPS = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "", " \n ", "\u00a0", "\u0085"]


def sample() -> str:
    kind = rng.random()
    if kind < 0.6:
        return "".join(w + rng.choice(GAPS) for w in rng.choices(WORDS, k=rng.randint(1, 12)))
    if kind < 0.75:
        return "".join(chr(rng.choice([rng.randint(1, 127), rng.randint(128, 0x7FF), rng.randint(0x800, 0xD7FF), rng.randint(0x10000, 0x1FFFF)])) for _ in range(rng.randint(1, 12)))
    if kind < 0.9:
        return "".join(rng.choice(" \n\tabcdefgh0123456789'stre.,;:-_()") for _ in range(rng.randint(1, 40)))
    return hf.decode([rng.randint(17, len(tokens) - 1) for _ in range(rng.randint(1, 10))]).encode("utf-8", "replace").decode("utf-8")


rows = [{"text": t, "ids": hf.encode(t).ids} for t in (sample() for _ in range(int(sys.argv[2])))]
print(json.dumps(rows, ensure_ascii=True, separators=(",", ":")).replace("},{", "},\n{"))
