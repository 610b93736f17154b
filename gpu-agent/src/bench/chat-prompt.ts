import type { Rng } from "@vibeserve/shared";
import type { ChatPrompt, DrawPrompt } from "./workload.ts";

type Message = ChatPrompt["messages"][number];

export interface PromptSource {
  /** Ids of a chat as the model's template renders it, up to the assistant's turn. */
  encodeChat(messages: readonly Message[]): readonly number[];
  /** Fresh text of about `tokens` tokens, words divided by white space. */
  drawText(rng: Rng, tokens: number): string;
}

/** Below this many tokens of its own a message says nothing, so the short form of the template is used. */
const LEAST_CONTENT = 8;
/** Short common words, which are one token each after a space in every byte-level BPE. */
const FILL = ["the", "and", "of", "to", "in", "for", "with", "on", "is", "that"];

/**
 * Draws chats of exactly as many tokens as the workload says, counted as the model reads them, template included: a template's tokens not counted
 * would push requests over the next prefill block. Most are one user message under the model's default system prompt; where that does not fit
 * (SmolLM2's takes 30 tokens), an empty system message stands before it (14). Throws RangeError on lengths under that.
 */
export function chatPrompts(source: PromptSource): DrawPrompt {
  const long = (content: string): Message[] => [{ role: "user", content }];
  const short = (content: string): Message[] => [{ role: "system", content: "" }, ...long(content)];
  const leastLong = source.encodeChat(long("")).length + LEAST_CONTENT;
  const leastShort = source.encodeChat(short("")).length + 1;
  return (rng, tokens) => {
    if (tokens < leastShort) throw new RangeError(`a chat of ${tokens} tokens: the model's template needs ${leastShort}`);
    const form = tokens >= leastLong ? long : short;
    for (let attempt = 0; attempt < 20; attempt++) {
      const prompt = fit(source, form, source.drawText(rng, tokens), tokens, rng);
      if (prompt) return prompt;
    }
    throw new Error(`no text of exactly ${tokens} tokens was found`);
  };
}

/** As many words of `text` as fit, then single-token words up to the exact length; null where that jumps over it. */
function fit(source: PromptSource, form: (content: string) => Message[], text: string, tokens: number, rng: Rng): ChatPrompt | null {
  const words = text.split(/\s+/).filter((w) => w !== "");
  const render = (list: readonly string[]): { messages: Message[]; ids: readonly number[] } => {
    const messages = form(list.join(" "));
    return { messages, ids: source.encodeChat(messages) };
  };
  let fits = 0;
  let over = words.length + 1;
  while (over - fits > 1) {
    const mid = (fits + over) >> 1;
    if (render(words.slice(0, mid)).ids.length <= tokens) fits = mid;
    else over = mid;
  }
  const list = words.slice(0, fits);
  for (;;) {
    const prompt = render(list);
    if (prompt.ids.length === tokens) return prompt;
    if (prompt.ids.length > tokens) return null;
    list.push(FILL[rng.int(FILL.length)] ?? "the");
  }
}
