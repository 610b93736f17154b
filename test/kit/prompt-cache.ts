/** A request to Anthropic's Messages API, as far as the cache looks at it. */
export interface Cacheable {
  model: string;
  tools?: unknown[];
  system?: unknown;
  messages: { role: string; content: unknown }[];
}

export interface InputTokens {
  input_tokens: number;
  cache_read_input_tokens: number;
  cache_creation_input_tokens: number;
}

/** The API accepts so many breakpoints in a request, and looks for what is written at so many blocks before each. */
export const MOST_BREAKPOINTS = 4;
const LOOKBACK = 20;

/** No real tokeniser, but it grows as one does. */
export const tokensOf = (text: string): number => Math.ceil(Buffer.byteLength(text) / 3);

/**
 * What Anthropic's cache of prompts makes of the requests of one server: a prefix (tools, system, messages, in this order) up to a breakpoint
 * (`cache_control`) is written, and the longest one that was written before, and that a breakpoint of this request covers, is read.
 * Unlike the real one it forgets nothing and has no least length.
 */
export class PromptCache {
  readonly #written = new Set<string>();

  take(request: Cacheable): InputTokens {
    const blocks = blocksOf(request);
    const breakpoints = blocks.flatMap((b, i) => (b.breakpoint ? [i] : []));
    const covered = blocks.flatMap((b, i) => (breakpoints.some((at) => i <= at && i > at - LOOKBACK) ? [b.prefix] : []));
    const read = covered.filter((prefix) => this.#written.has(`${request.model}\n${prefix}`)).at(-1) ?? "";
    const written = breakpoints.length === 0 ? "" : (blocks[breakpoints.at(-1) ?? 0]?.prefix ?? "");
    for (const at of breakpoints) this.#written.add(`${request.model}\n${blocks[at]?.prefix ?? ""}`);
    return {
      cache_read_input_tokens: tokensOf(read),
      cache_creation_input_tokens: tokensOf(written.slice(read.length)),
      input_tokens: tokensOf((blocks.at(-1)?.prefix ?? "").slice(written.length)),
    };
  }
}

/** Of a whole prompt, without a cache. */
export const promptTokens = (request: Cacheable): number => tokensOf(blocksOf(request).at(-1)?.prefix ?? "");

/** How many breakpoints a request has. */
export const breakpointsOf = (request: Cacheable): number => blocksOf(request).filter((b) => b.breakpoint).length;

function blocksOf({ tools = [], system, messages }: Cacheable): { prefix: string; breakpoint: boolean }[] {
  const parts = [
    ...tools.map((tool) => ["tool", tool] as const),
    ...listOf(system).map((block) => ["system", block] as const),
    ...messages.flatMap(({ role, content }) => listOf(content).map((block) => [role, block] as const)),
  ];
  let prefix = "";
  return parts.map(([place, block]) => {
    const { cache_control, ...rest } = block as Record<string, unknown>;
    prefix += `${place} ${JSON.stringify(rest)}\n`;
    return { prefix, breakpoint: cache_control !== undefined };
  });
}

/** A string is short for one block of text. */
const listOf = (content: unknown): unknown[] =>
  Array.isArray(content) ? (content as unknown[]) : content === undefined ? [] : [{ type: "text", text: content }];
