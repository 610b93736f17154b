import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { chatFormatOf } from "./chat-template.ts";
import { preTokenize, WHITE_SPACE } from "./pre-tokenize.ts";
import type { Vocabulary } from "./tokenizer.ts";

/** What is read of tokenizer.json; other members do not change what text becomes. */
const TokenizerFile = z.object({
  added_tokens: z.array(z.object({ id: z.int().min(0), content: z.string(), special: z.boolean() })).default([]),
  normalizer: z.object({ type: z.string() }).nullish(),
  pre_tokenizer: z.unknown(),
  model: z.object({
    type: z.literal("BPE"),
    vocab: z.record(z.string(), z.int().min(0)),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
    ignore_merges: z.boolean().nullish(),
  }),
});
const Config = z.object({
  vocab_size: z.int().min(1),
  max_position_embeddings: z.int().min(1),
  eos_token_id: z.union([z.int(), z.array(z.int()).min(1)]).nullish(),
});

/** Digits one by one, then GPT-2's pattern: SmolLM. */
const Digits = z.object({
  type: z.literal("Sequence"),
  pretokenizers: z.tuple([
    z.object({ type: z.literal("Digits"), individual_digits: z.literal(true) }),
    z.object({ type: z.literal("ByteLevel"), add_prefix_space: z.literal(false), use_regex: z.literal(true) }),
  ]),
});
/** One pattern whose matches are pieces, as is what lies between: Llama 3, Qwen. */
const Split = z.object({
  type: z.literal("Sequence"),
  pretokenizers: z.tuple([
    z.object({
      type: z.literal("Split"),
      pattern: z.object({ Regex: z.string().max(1000) }),
      behavior: z.literal("Isolated"),
      invert: z.literal(false),
    }),
    z.object({ type: z.literal("ByteLevel"), add_prefix_space: z.literal(false), use_regex: z.literal(false) }),
  ]),
});

/**
 * The tokenizer of a Hugging Face folder: byte-level BPE with one of the pre-tokenizers above. Throws Error with a plain message on anything else, since a
 * tokenizer that nearly agrees judges stacks wrongly.
 */
export function huggingFaceVocabulary(folder: string): Vocabulary {
  const file = parse(TokenizerFile, folder, "tokenizer.json");
  const config = parse(Config, folder, "config.json");
  const generation = existsSync(join(folder, "generation_config.json")) ? parse(Config.partial(), folder, "generation_config.json") : {};
  const tokens: (string | undefined)[] = Array.from({ length: config.vocab_size });
  for (const [token, id] of Object.entries(file.model.vocab)) tokens[id] = token;
  for (const { id, content } of file.added_tokens) tokens[id] = content;
  const control = new Set(file.added_tokens.flatMap((t) => (t.special ? [t.id] : [])));
  const named = new Set([...control].map((id) => tokens[id]));
  const template = templateOf(folder);
  const chat = chatFormatOf((name) => named.has(name), template);
  if (!chat) throw new Error(`${folder}: the chat template is neither ChatML nor Llama 3's`);
  const eos = generation.eos_token_id ?? config.eos_token_id;
  const ends = typeof eos === "number" ? [eos] : (eos ?? []);
  // Of several end tokens, the one that ends a turn.
  const eosId = ends.find((id) => tokens[id] === chat.turnEnd) ?? ends[0];
  if (eosId === undefined) throw new Error(`${folder}: no eos_token_id is stated`);
  return {
    tokens,
    control,
    merges: file.model.merges.map((m) => (typeof m === "string" ? m : m.join(" "))),
    wholeFirst: file.model.ignore_merges === true,
    eosId,
    contextLength: config.max_position_embeddings,
    chat,
    preTokenize: normalized(file.normalizer?.type, preTokenizer(folder, file.pre_tokenizer)),
  };
}

function parse<S extends z.ZodType>(schema: S, folder: string, name: string): z.infer<S> {
  const parsed = schema.safeParse(JSON.parse(readFileSync(join(folder, name), "utf8")));
  if (parsed.success) return parsed.data;
  throw new Error(`${join(folder, name)}: ${z.prettifyError(parsed.error)}`);
}

function templateOf(folder: string): string {
  const own = join(folder, "chat_template.jinja");
  if (existsSync(own)) return readFileSync(own, "utf8");
  const config = join(folder, "tokenizer_config.json");
  const stated: unknown = existsSync(config)
    ? (JSON.parse(readFileSync(config, "utf8")) as { chat_template?: unknown }).chat_template
    : null;
  return typeof stated === "string" ? stated : "";
}

function normalized(type: string | undefined, pieces: Vocabulary["preTokenize"]): Vocabulary["preTokenize"] {
  if (type === undefined) return pieces;
  if (type !== "NFC") throw new Error(`the tokenizer knows no normalizer or NFC, not ${type}`);
  return (text) => pieces(text.normalize("NFC"));
}

function preTokenizer(folder: string, stated: unknown): Vocabulary["preTokenize"] {
  if (Digits.safeParse(stated).success) return preTokenize;
  const split = Split.safeParse(stated);
  if (!split.success)
    throw new Error(`${folder}: the pre-tokenizer is neither SmolLM's nor a single split: ${JSON.stringify(stated).slice(0, 300)}`);
  const pattern = new RegExp(translated(split.data.pretokenizers[0].pattern.Regex), "gu");
  return (text) => {
    const pieces: string[] = [];
    let at = 0;
    for (const m of text.matchAll(pattern)) {
      if (m.index > at) pieces.push(text.slice(at, m.index));
      if (m[0] !== "") pieces.push(m[0]);
      at = m.index + m[0].length;
    }
    if (at < text.length) pieces.push(text.slice(at));
    return pieces;
  };
}

/** A pattern of the original's engine for JavaScript's, whose `\s` has U+FEFF and lacks U+0085. */
function translated(pattern: string): string {
  let inClass = false;
  return pattern.replace(/\\[^]|[[\]]/g, (part) => {
    if (part === "[" || part === "]") inClass = part === "[";
    if (part === "\\s") return inClass ? WHITE_SPACE : `[${WHITE_SPACE}]`;
    if (part === "\\S" && !inClass) return `[^${WHITE_SPACE}]`;
    return part;
  });
}
