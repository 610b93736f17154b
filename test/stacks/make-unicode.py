"""Writes stacks/cpu/core/unicode.h: which characters are letters and numbers to Hugging Face's `tokenizers`.

The classes are asked of the library itself, character by character, because its two Unicode tables (Oniguruma's for the GPT-2
pattern, Rust's for Digits) are of different Unicode versions, and equality with it is what the tokenizer is tested for.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install tokenizers==0.23.3
    /tmp/v/bin/python test/stacks/make-unicode.py > stacks/cpu/core/unicode.h
"""

from tokenizers import Regex, pre_tokenizers

LETTER = pre_tokenizers.Split(Regex(r"\p{L}"), "isolated")
DIGIT = pre_tokenizers.Digits(individual_digits=True)
TEMPLATE = '''// Letters and numbers of Unicode, as test/stacks/make-unicode.py found them in Hugging Face's tokenizers. Generated: do not edit.
#pragma once

enum class Class : unsigned char { Other, Letter, Number, Space, End };

// Ranges in rising order, as a run of pairs (distance from the end of the last range, length - 1). A value is written in base 45, high
// digits first: '#'..'O' is a last digit, 'P'..'|' a digit that another follows.
inline const char* const kLetters =
%s;
inline const char* const kNumbers =
%s;

inline Class unicode_class(int code) {
  static const struct Table {
    Class of[0x110000] = {};
    void fill(const char* ranges, Class k) {
      for (int at = 0, edge = 0, value = 0; *ranges; ++ranges) {
        value = value * 45 + (*ranges < 'P' ? *ranges - '#' : *ranges - 'P');
        if (*ranges >= 'P') continue;
        if (edge ^= 1) at += value; else for (int i = 0; i <= value; ++i) of[at++] = k;
        value = 0;
      }
    }
    Table() {
      fill(kLetters, Class::Letter);
      fill(kNumbers, Class::Number);
      for (int c : {9, 10, 11, 12, 13, 32, 133, 160, 5760, 8232, 8233, 8239, 8287, 12288}) of[c] = Class::Space;
      for (int c = 8192; c <= 8202; ++c) of[c] = Class::Space;
    }
  }& table = *new Table;
  return table.of[code];
}
'''


def isolates(splitter, code: int) -> bool:
    return len(splitter.pre_tokenize_str("#" + chr(code) + "#")) == 3


def number(value: int) -> str:
    out = chr(ord("#") + value % 45)
    while value := value // 45:
        out = chr(ord("P") + value % 45) + out
    return out


def encode(codes: list[int]) -> str:
    out, edge, known = "", 0, set(codes)
    starts = [c for c in codes if c - 1 not in known]
    ends = [c for c in codes if c + 1 not in known]
    for first, last in zip(starts, ends):
        out += number(first - edge) + number(last - first)
        edge = last + 1
    lines = [out[i : i + 126] for i in range(0, len(out), 126)]
    return "\n".join(f'    R"({line})"' for line in lines)


valid = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
numbers = [c for c in valid if isolates(DIGIT, c)]
letters = sorted({c for c in valid if isolates(LETTER, c)} - set(numbers))
print(TEMPLATE % (encode(letters), encode(numbers)), end="")
