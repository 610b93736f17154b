export { generatePrompt, promptDrawer, MIN_PROMPT_TOKENS, type GeneratedPrompt, type PromptOptions } from "./generate.ts";
export { PROMPT_KINDS, type PromptKind } from "./kinds.ts";
