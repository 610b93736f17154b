import { pick } from "../accuracy/prompts/words.ts";
import type { Tokenizer } from "../tokenizer/index.ts";
import type { ChatPrompt, DrawPrompt } from "./workload.ts";

/** Fewer tries fail only for a vocabulary without common words. */
const TRIES = 200;

/**
 * Chats shorter than a natural prompt can be: an empty system message (the default one alone takes 21 tokens) and a few random words. For slices, on
 * which even a slow seed has to end in seconds; what is asked for decides nothing there, only its exact length and that it is fresh. Throws RangeError
 * where the template leaves no room.
 */
export function shortChats(tokenizer: Tokenizer): DrawPrompt {
  const chat = (content: string): ChatPrompt => {
    const messages = [
      { role: "system" as const, content: "" },
      { role: "user" as const, content },
    ];
    return { messages, ids: tokenizer.encodeChat(messages) };
  };
  const words = wordsOf(tokenizer);
  const empty = chat("").ids.length;
  return (rng, tokens) => {
    if (tokens <= empty) throw new RangeError(`a chat of ${tokens} tokens: the template alone takes ${empty}`);
    for (let i = 0; i < TRIES; i++) {
      const text = Array.from({ length: tokens - empty }, () => pick(rng, words)).join(" ");
      const prompt = chat(text);
      if (prompt.ids.length === tokens) return prompt;
    }
    throw new Error(`no chat of exactly ${tokens} tokens was found`);
  };
}

/** Words that are one token both after a space and at the start of a message: joined by spaces, each stays one. */
function wordsOf(tokenizer: Tokenizer): string[] {
  const words: string[] = [];
  for (let id = 0; id < tokenizer.vocabSize; id++) {
    const text = tokenizer.isControl(id) ? "" : tokenizer.decode([id]);
    if (/^ [a-z]{3,9}$/.test(text) && tokenizer.encode(text.slice(1)).length === 1) words.push(text.slice(1));
  }
  return words;
}
