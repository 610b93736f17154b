import { z } from "zod";

/** A part of what a model said. opaque: what its provider wants back unchanged (signed reasoning), of no meaning to anyone else. */
export const Block = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text"), text: z.string() }),
  z.strictObject({ type: z.literal("call"), id: z.string().min(1), tool: z.string().min(1), input: z.unknown() }),
  z.strictObject({ type: z.literal("opaque"), provider: z.string(), data: z.unknown() }),
]);
export type Block = z.infer<typeof Block>;
/** One turn of a model, as it is stored: an artifact of the campaign, never of the candidate's tree. */
export const Said = z.array(Block);

/** What a tool answered to the call with this id. */
export interface Answer {
  id: string;
  text: string;
  isError: boolean;
}

/** Never changed once it is made. answers: to every call of the assistant's turn before it. text: "" where there is nothing to add. */
export type Message = { role: "user"; answers: readonly Answer[]; text: string } | { role: "assistant"; content: readonly Block[] };

/** A tool as a model is told of it; input is a JSON schema of an object. */
export interface ToolSpec {
  name: string;
  description: string;
  input: Readonly<Record<string, unknown>>;
}

export const user = (text: string): Message => ({ role: "user", answers: [], text });
export const assistant = (text: string): Message => ({ role: "assistant", content: [{ type: "text", text }] });
const sizes = new WeakMap<Message, number>();

/** Bytes of a message as JSON: counted once, since a conversation is asked for its size at each of its turns. */
export function bytesOf(message: Message): number {
  const bytes = sizes.get(message) ?? Buffer.byteLength(JSON.stringify(message));
  sizes.set(message, bytes);
  return bytes;
}

export const callsOf = (content: readonly Block[]) => content.filter((b) => b.type === "call");

const wellFormedOf = new WeakMap<Message, Message>();

/**
 * As they can be sent: text that was cut may end in half a surrogate pair, and a provider refuses such a request for good. Opaque parts stay as they came. Worked
 * out once a message, like its size.
 */
export const wellFormed = (messages: readonly Message[]): Message[] =>
  messages.map((m) => {
    const known = wellFormedOf.get(m) ?? wellFormedMessage(m);
    wellFormedOf.set(m, known);
    return known;
  });
const wellFormedMessage = (m: Message): Message =>
  m.role === "user"
    ? { ...m, answers: m.answers.map((a) => ({ ...a, text: a.text.toWellFormed() })), text: m.text.toWellFormed() }
    : { ...m, content: m.content.map((b) => (b.type === "opaque" ? b : mended(b))) };
const mended = <T extends Block>(block: T): T =>
  JSON.parse(JSON.stringify(block), (_, value: unknown) => (typeof value === "string" ? value.toWellFormed() : value)) as T;

/** The key under which arguments are kept that are no JSON object; no tool of ours has such a parameter. */
const MALFORMED = "__malformed";
const object = z.record(z.string(), z.unknown());
/** No tool of ours takes arguments that are nested deeper than three; what can be read but not written again would be lost after it was paid. */
const MAX_DEPTH = 50;
const isDeep = (value: unknown, depth = 0): boolean =>
  typeof value === "object" && value !== null && (depth >= MAX_DEPTH || Object.values(value).some((v) => isDeep(v, depth + 1)));

/** A call's input from the JSON that the model wrote: an object ({} where it wrote nothing), or what it wrote, at most 2,000 characters, for `malformed`. */
export function inputOf(json: string): Record<string, unknown> {
  if (json.trim() === "") return {};
  try {
    const input = object.parse(JSON.parse(json));
    return isDeep(input) ? { [MALFORMED]: json.slice(0, 2_000) } : input;
  } catch {
    return { [MALFORMED]: json.slice(0, 2_000) };
  }
}

/** What the model wrote as a call's arguments, where that is no JSON object: to be shown to it; null: the input is fit to be checked. */
export function malformed(input: unknown): string | null {
  const text = object.safeParse(input).data?.[MALFORMED];
  return typeof text === "string" ? text : null;
}
