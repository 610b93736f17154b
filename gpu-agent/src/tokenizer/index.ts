export { comparable, loadTokenizer, Tokenizer } from "./tokenizer.ts";
export { type ChatFormat, type ChatMessage, type ChatPart } from "./chat-template.ts";
export { readGguf, type Gguf, type GgufTensor, type GgufValue } from "./gguf.ts";
