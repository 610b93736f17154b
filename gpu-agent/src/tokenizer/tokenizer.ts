import { statSync } from "node:fs";
import { Bpe } from "./bpe.ts";
import { bytesOfChars } from "./byte-level.ts";
import { chatMl, DEFAULT_SYSTEM_PROMPT, type ChatFormat, type ChatMessage } from "./chat-template.ts";
import { readGguf, type Gguf } from "./gguf.ts";
import { huggingFaceVocabulary } from "./hugging-face.ts";
import { preTokenize } from "./pre-tokenize.ts";

/** GGUF's token types that stand for no text: 3 control, 5 unused. */
const NO_TEXT = new Set([3, 5]);

/** What a tokenizer is made of, whatever file it came from. */
export interface Vocabulary {
  /** By id; bytes as GPT-2's characters. A hole is an id that the model has and no token uses. */
  readonly tokens: readonly (string | undefined)[];
  /** Ids that stand for no text. */
  readonly control: ReadonlySet<number>;
  /** "left right", lowest rank first. */
  readonly merges: readonly string[];
  /** A piece that is a token as a whole is that token, whatever the merges say. */
  readonly wholeFirst: boolean;
  readonly eosId: number;
  readonly contextLength: number;
  readonly chat: ChatFormat;
  readonly preTokenize: (text: string) => string[];
}

/** The model's own tokenizer. Immutable but for a bounded cache of words. */
export class Tokenizer {
  readonly vocabSize: number;
  /** Ends a generation. */
  readonly eosId: number;
  readonly contextLength: number;
  readonly chat: ChatFormat;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #bytes: readonly Uint8Array[];
  readonly #control: ReadonlySet<number>;
  readonly #bpe: Bpe;
  readonly #preTokenize: Vocabulary["preTokenize"];

  constructor({ tokens, control, merges, wholeFirst, eosId, contextLength, chat, preTokenize }: Vocabulary) {
    this.vocabSize = tokens.length;
    this.eosId = eosId;
    this.contextLength = contextLength;
    this.chat = chat;
    this.#preTokenize = preTokenize;
    this.#ids = new Map(tokens.flatMap((t, id) => (t === undefined ? [] : [[t, id] as const])));
    this.#control = control;
    const utf8 = new TextEncoder();
    this.#bytes = Array.from(tokens, (t, id) =>
      t === undefined || control.has(id) ? new Uint8Array() : (bytesOfChars(t) ?? utf8.encode(t)),
    );
    this.#bpe = new Bpe(this.#ids, merges, wholeFirst);
  }

  /** Text → ids. Control tokens are never parsed out of text. */
  encode(text: string): number[] {
    return this.#preTokenize(text).flatMap((piece) => this.#bpe.encode(piece));
  }

  /** The prompt of a chat, up to the assistant's turn. */
  encodeChat(messages: readonly ChatMessage[]): number[] {
    return this.chat.render(messages).flatMap((part) => ("control" in part ? [this.controlId(part.control)] : this.encode(part.text)));
  }

  /** UTF-8 of a token; none for a control token. Throws RangeError on an id outside the vocabulary. */
  bytesOf(id: number): Uint8Array {
    const bytes = this.#bytes[id];
    if (!bytes) throw new RangeError(`token id ${id} is outside the vocabulary`);
    return bytes;
  }

  /** Text of the ids; bytes that are no UTF-8 become U+FFFD. */
  decode(ids: readonly number[]): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(ids.map((id) => this.bytesOf(id))));
  }

  isControl(id: number): boolean {
    return this.#control.has(id);
  }

  controlId(name: string): number {
    const id = this.#ids.get(name);
    if (id === undefined || !this.#control.has(id)) throw new Error(`the vocabulary has no control token ${name}`);
    return id;
  }
}

/**
 * Text as two decoders of the same ids must agree on it: they differ in how many U+FFFD stand for bytes that are no UTF-8, and in whether an unfinished
 * character at the very end is shown. Nothing is counted from text, so neither can buy anything.
 */
export const comparable = (text: string): string => text.replace(/\uFFFD+/g, "\uFFFD").replace(/\uFFFD$/, "");

/** Reads the header of a GGUF file (about 0.2 s for 49,152 tokens), or a Hugging Face folder. */
export function loadTokenizer(path: string): Tokenizer {
  return new Tokenizer(statSync(path).isDirectory() ? huggingFaceVocabulary(path) : ggufVocabulary(readGguf(path)));
}

function ggufVocabulary(gguf: Gguf): Vocabulary {
  const strings = (key: string): readonly string[] => {
    const v = gguf.metadata.get(key);
    if (!Array.isArray(v)) throw new Error(`the GGUF has no ${key}`);
    return v.map(String);
  };
  const number = (key: string): number => {
    const v = gguf.metadata.get(key);
    if (typeof v !== "number") throw new Error(`the GGUF has no ${key}`);
    return v;
  };
  const [model, pre] = [gguf.metadata.get("tokenizer.ggml.model"), gguf.metadata.get("tokenizer.ggml.pre")];
  if (model !== "gpt2" || pre !== "smollm")
    throw new Error(`the tokenizer knows gpt2 with pre-tokenizer smollm, not ${String(model)} with ${String(pre)}`);
  const tokens = strings("tokenizer.ggml.tokens");
  const types = gguf.metadata.get("tokenizer.ggml.token_type");
  return {
    tokens,
    control: new Set(tokens.flatMap((_, id) => (Array.isArray(types) && NO_TEXT.has(Number(types[id])) ? [id] : []))),
    merges: strings("tokenizer.ggml.merges"),
    wholeFirst: false,
    eosId: number("tokenizer.ggml.eos_token_id"),
    contextLength: number("llama.context_length"),
    chat: chatMl(DEFAULT_SYSTEM_PROMPT),
    preTokenize,
  };
}
