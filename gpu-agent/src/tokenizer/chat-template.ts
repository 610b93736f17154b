export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** A piece of a rendered chat: a control token by its name, or text in which no control token is ever parsed. */
export type ChatPart = { readonly control: string } | { readonly text: string };

/** How a model's chats read. */
export interface ChatFormat {
  /** The chat as it is given to the model, ready for the assistant's turn. */
  render(messages: readonly ChatMessage[]): ChatPart[];
  /** The control token behind every turn. */
  readonly turnEnd: string;
  /** Whether a chat that brings no system message begins with one all the same. */
  readonly defaultSystem: boolean;
}

/** As SmolLM2's tokenizer.chat_template states it; the default holds where the first message is no system message. */
export const DEFAULT_SYSTEM_PROMPT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

/** `system`: the template's default system message; null: it has none. */
export const chatMl = (system: string | null): ChatFormat => ({
  turnEnd: "<|im_end|>",
  defaultSystem: system !== null,
  render: (messages) => {
    const all: readonly ChatMessage[] =
      messages[0]?.role === "system" || system === null ? messages : [{ role: "system", content: system }, ...messages];
    return [
      ...all.flatMap((m): ChatPart[] => [
        { control: "<|im_start|>" },
        { text: `${m.role}\n${m.content}` },
        { control: "<|im_end|>" },
        { text: "\n" },
      ]),
      { control: "<|im_start|>" },
      { text: "assistant\n" },
    ];
  },
});

/** What Llama 3.1 and 3.2 put before every system message, and in place of a missing one. */
const DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

/** Llama 3's headers; `dated`: with the dates that 3.1's template states. Contents are trimmed, as the template does. */
const llama3 = (dated: boolean): ChatFormat => ({
  turnEnd: "<|eot_id|>",
  defaultSystem: dated,
  render: (messages) => {
    const own = messages[0]?.role === "system" ? messages[0].content.trim() : "";
    const rest = messages[0]?.role === "system" ? messages.slice(1) : messages;
    const system = (dated ? DATES : "") + own;
    const turn = (role: string, content: string): ChatPart[] => [
      { control: "<|start_header_id|>" },
      { text: role },
      { control: "<|end_header_id|>" },
      { text: `\n\n${content}` },
    ];
    return [
      { control: "<|begin_of_text|>" },
      ...(system === "" ? [] : [...turn("system", system), { control: "<|eot_id|>" }]),
      ...rest.flatMap((m) => [...turn(m.role, m.content.trim()), { control: "<|eot_id|>" }]),
      ...turn("assistant", ""),
    ];
  },
});

/** The format of a checkpoint, by its control tokens and its template's text; null: neither ChatML nor Llama 3's. */
export function chatFormatOf(hasControl: (name: string) => boolean, template: string): ChatFormat | null {
  if (["<|im_start|>", "<|im_end|>"].every(hasControl)) {
    // A default system message is text of the template itself; where it inserts a message's content there is a quote in between.
    return chatMl(/<\|im_start\|>system(?:\\n|\n)([^'"{}<]+)<\|im_end\|>/.exec(template)?.[1] ?? null);
  }
  if (["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"].every(hasControl))
    return llama3(template.includes("Cutting Knowledge Date"));
  return null;
}
