export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** ChatML as SmolLM2's GGUF states it in tokenizer.chat_template; the default holds where the first message is no system message. */
export const DEFAULT_SYSTEM_PROMPT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

/** A piece of a rendered chat: a control token by its name, or text in which no control token is ever parsed. */
export type ChatPart = { readonly control: "<|im_start|>" | "<|im_end|>" } | { readonly text: string };

/** The chat as it is given to the model, ready for the assistant's turn. */
export function renderChat(messages: readonly ChatMessage[]): ChatPart[] {
  const all = messages[0]?.role === "system" ? messages : [{ role: "system", content: DEFAULT_SYSTEM_PROMPT }, ...messages];
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
}
