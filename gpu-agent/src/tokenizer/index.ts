export { loadTokenizer, Tokenizer } from "./tokenizer.ts";
export { DEFAULT_SYSTEM_PROMPT, renderChat, type ChatFormat, type ChatMessage, type ChatPart } from "./chat-template.ts";
export { readGguf, type Gguf, type GgufTensor, type GgufValue } from "./gguf.ts";
