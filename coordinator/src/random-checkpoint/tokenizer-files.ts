import { byteCharacters } from "../tiny-model/tiny-model.ts";

const CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const LETTERS = Array.from("abcdefghijklmnopqrstuvwxyz");
const SYLLABLES = Array.from("bcdfghjklmnpqrstvwxz").flatMap((c) => Array.from("aeiou", (v) => c + v));
/** How the template's own words come together from pairs: "user", "system" and "assistant" are a token each. */
const WORDS = ["us er", "sy st", "syst em", "as s", "ass is", "assis t", "assist an", "assistan t"].map(
  (m) => m.split(" ") as [string, string],
);
/** GPT-2's character for a space. */
const SPACE = "Ġ";
const TEMPLATE =
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/** Ids that config.json names. */
export const [BOS_ID, EOS_ID] = [0, 2];
/** Control tokens and bytes: no vocabulary is smaller. */
export const LEAST_VOCABULARY = CONTROL.length + 256;

/**
 * tokenizer.json and tokenizer_config.json of a made-up language: byte-level BPE as SmolLM's with ChatML. Ids: three control tokens, the bytes, pairs of letters,
 * pairs and letters behind a space (so that text takes a token for two or three characters), the template's words, then a made-up word of three syllables for each that is left.
 */
export function tokenizerFiles(vocabulary: number): Record<string, unknown> {
  const pairs = LETTERS.flatMap((a) => LETTERS.map((b) => [a, b] as const));
  const all = [...pairs, ...pairs.map(([a, b]) => [SPACE, a + b] as const), ...LETTERS.map((a) => [SPACE, a] as const), ...WORDS];
  const merges = all.slice(0, vocabulary - LEAST_VOCABULARY);
  const known = [...CONTROL, ...byteCharacters(), ...merges.map(([a, b]) => a + b)];
  const tokens = [...known, ...Array.from({ length: vocabulary - known.length }, (_, i) => word(i))];
  return {
    "tokenizer.json": tokenizerJson(
      CONTROL,
      tokens,
      merges.map(([a, b]) => `${a} ${b}`),
    ),
    "tokenizer_config.json": {
      tokenizer_class: "PreTrainedTokenizerFast",
      chat_template: TEMPLATE,
      bos_token: CONTROL[BOS_ID],
      eos_token: CONTROL[EOS_ID],
    },
  };
}

/** Another for each number under a million. */
function word(n: number): string {
  return SPACE + [n % 100, Math.floor(n / 100) % 100, Math.floor(n / 10_000)].map((i) => SYLLABLES[i]!).join("");
}

/** tokenizer.json of byte-level BPE with SmolLM's pre-tokenizer: ids are places in `tokens`, which begins with the control tokens. */
export function tokenizerJson(control: readonly string[], tokens: readonly string[], merges: readonly string[]): Record<string, unknown> {
  return {
    version: "1.0",
    added_tokens: control.map((content, id) => ({
      ...{ id, content, special: true },
      ...{ single_word: false, lstrip: false, rstrip: false, normalized: false },
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Digits", individual_digits: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      ...{ dropout: null, unk_token: null, fuse_unk: false, byte_fallback: false },
      vocab: Object.fromEntries(tokens.map((t, id) => [t, id])),
      merges,
    },
  };
}
