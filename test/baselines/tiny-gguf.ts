import { writeFileSync } from "node:fs";

/** GPT-2's character for each byte: printable Latin-1 as itself, the 68 others as U+0100, U+0101, … */
function byteCharacters(): string[] {
  let hidden = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint((b > 32 && b < 127) || (b > 160 && b !== 173) ? b : hidden++));
}

const CHARACTERS = byteCharacters();
const SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES = ["z y", "zy x", "Ġ zyx"];
export const TOKENS = [...SPECIAL, ...CHARACTERS, ...MERGES.map((m) => m.replace(" ", ""))];
export const EOS = 2;
export const CONTEXT = 5000;

/** The id of a token by its text; a single character stands for its byte. */
export function idOf(token: string): number {
  const id = TOKENS.lastIndexOf(token === " " ? "Ġ" : token);
  if (id < 0) throw new Error(`no token ${JSON.stringify(token)}`);
  return id;
}

/** The ids of text that no merge and no special token is in, byte by byte. */
export const bytesOf = (text: string): number[] => [...Buffer.from(text)].map((b) => SPECIAL.length + b);

const u32 = (n: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(n);
  return b;
};
const u64 = (n: number): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt(n));
  return b;
};
const text = (s: string): Buffer => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)]);
const [U32, STRING, ARRAY] = [4, 8, 9];
const list = (kind: number, items: readonly Buffer[]): Buffer => Buffer.concat([u32(ARRAY), u32(kind), u64(items.length), ...items]);

/** A GGUF file of metadata alone: a byte-level vocabulary with five merges, as SmolLM's is laid out. */
export function writeTinyGguf(path: string, pre = "smollm"): void {
  const string = (s: string): Buffer => Buffer.concat([u32(STRING), text(s)]);
  const number = (n: number): Buffer => Buffer.concat([u32(U32), u32(n)]);
  const pairs: [string, Buffer][] = [
    ["general.architecture", string("llama")],
    ["llama.context_length", number(CONTEXT)],
    ["tokenizer.ggml.model", string("gpt2")],
    ["tokenizer.ggml.pre", string(pre)],
    ["tokenizer.ggml.tokens", list(STRING, TOKENS.map(text))],
    [
      "tokenizer.ggml.token_type",
      list(
        5,
        TOKENS.map((_, i) => u32(i < SPECIAL.length ? 3 : 1)),
      ),
    ],
    ["tokenizer.ggml.merges", list(STRING, MERGES.map(text))],
    ["tokenizer.ggml.eos_token_id", number(EOS)],
  ];
  const head = [Buffer.from("GGUF"), u32(3), u64(0), u64(pairs.length)];
  writeFileSync(path, Buffer.concat([...head, ...pairs.flatMap(([k, v]) => [text(k), v])]));
}
