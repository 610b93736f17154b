import type { Rng } from "@vibeserve/shared";
import type { ChatMessage } from "../../tokenizer/index.ts";
import { language, snippet } from "./code.ts";
import { aside, question, reply, sentence } from "./sentences.ts";
import { pick, word } from "./words.ts";

export const PROMPT_KINDS = ["chat", "code", "list", "copy", "multi-turn"] as const;
export type PromptKind = (typeof PROMPT_KINDS)[number];

/** A prompt before its length is fixed: `lead`, then as many units as fit make the last user message. */
export interface PromptPlan {
  /** null: the model's default system prompt. */
  readonly system: string | null;
  readonly history: readonly ChatMessage[];
  readonly lead: string;
  readonly unit: () => string;
}

const SYSTEMS: readonly ((r: Rng) => string | null)[] = [
  () => null,
  () => null,
  (r) => `You are a ${word(r, "adjective")} ${word(r, "role")} who answers in plain English.`,
  (r) => `Answer as a ${word(r, "role")} from ${word(r, "place")} would.`,
  () => "Be brief.",
];

/** Draws the content of a prompt. Everything comes from `rng`; nothing is remembered. */
export function planPrompt(rng: Rng, kind: PromptKind): PromptPlan {
  const system = pick(rng, SYSTEMS)(rng);
  const plain = { system, history: [] };
  switch (kind) {
    case "chat":
      return { ...plain, lead: question(rng), unit: () => ` ${aside(rng)}` };
    case "code": {
      const l = language(rng);
      const task = pick(rng, [
        `Explain what this ${l} code does and find one mistake:`,
        `Rename the functions and add comments to this ${l} code:`,
        `Write a test for the following ${l} code:`,
      ]);
      return { ...plain, lead: `${task}\n\n`, unit: () => `${snippet(rng, l)}\n` };
    }
    case "list": {
      const task = pick(rng, [
        `Sort these notes by importance for a ${word(rng, "role")}:`,
        `Which of these ${word(rng, "item")} should ${word(rng, "person")} buy first?`,
        "Summarise this list in one sentence:",
      ]);
      return {
        ...plain,
        lead: task,
        unit: () =>
          `\n- ${1 + rng.int(60)} ${word(rng, "item")} for ${word(rng, "person")} (${word(rng, "adjective")}, ${word(rng, "material")})`,
      };
    }
    case "copy": {
      const task = pick(rng, [
        "Copy the following text word for word",
        "Repeat this text exactly",
        "Write out the text below without any change",
      ]);
      return { ...plain, lead: `${task}:\n\n`, unit: () => `${sentence(rng)} ` };
    }
    case "multi-turn": {
      const history: ChatMessage[] = [];
      for (let turn = 0; turn <= rng.int(3); turn++)
        history.push({ role: "user", content: question(rng) }, { role: "assistant", content: reply(rng) });
      return {
        ...plain,
        history,
        lead: pick(rng, ["Thanks. ", "I see. ", "That helps. ", ""]) + question(rng),
        unit: () => ` ${aside(rng)}`,
      };
    }
  }
}
