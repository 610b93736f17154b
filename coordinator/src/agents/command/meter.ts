import { isRecord, parseJson, type TurnUsage } from "@vibeserve/shared";

/** No answer, and no event of a stream, is larger; what is beyond is passed on unread, and the request counts as unmetered. */
const MOST_CHARACTERS = 8_000_000;

/**
 * Reads the tokens that a provider billed out of its answer as it passes: Anthropic Messages, OpenAI Responses and chat completions, Gemini; as one JSON
 * object or as server-sent events. Counts within one answer are totals so far, so the largest of each is taken.
 */
export class Meter {
  readonly #stream: boolean;
  readonly #decoder = new TextDecoder();
  readonly #largest = new Map<string, number>();
  #text = "";
  #lost = false;

  constructor(contentType: string) {
    this.#stream = contentType.includes("text/event-stream");
  }

  write(chunk: Uint8Array): void {
    if (this.#lost) return;
    this.#text += this.#decoder.decode(chunk, { stream: true });
    if (this.#stream) this.#takeLines();
    if (this.#text.length > MOST_CHARACTERS) this.#lost = true;
  }

  /** The whole answer has passed. null: it says nothing of tokens, or not in a form that is known. */
  end(): TurnUsage | null {
    if (this.#lost) return null;
    if (this.#stream) this.#takeLines(true);
    else this.#take(this.#text);
    const count = (...names: string[]): number => names.reduce((sum, name) => sum + (this.#largest.get(name) ?? 0), 0);
    if (this.#largest.has("promptTokenCount")) {
      const cached = count("cachedContentTokenCount");
      const input = count("promptTokenCount", "toolUsePromptTokenCount") - cached;
      return usage(input, count("candidatesTokenCount", "thoughtsTokenCount"), cached, 0);
    }
    if (this.#largest.has("prompt_tokens")) {
      const cached = count("prompt_tokens_details.cached_tokens");
      return usage(count("prompt_tokens") - cached, count("completion_tokens"), cached, 0);
    }
    if (!this.#largest.has("input_tokens")) return null;
    // OpenAI counts what was cached among the input, Anthropic beside it.
    const cached = count("input_tokens_details.cached_tokens");
    const read = count("cache_read_input_tokens", "input_tokens_details.cached_tokens");
    return usage(count("input_tokens") - cached, count("output_tokens"), read, count("cache_creation_input_tokens"));
  }

  #takeLines(last = false): void {
    const lines = this.#text.split(/\r?\n/);
    this.#text = last ? "" : (lines.pop() ?? "");
    for (const line of lines) if (line.startsWith("data:")) this.#take(line.slice("data:".length));
  }

  #take(json: string): void {
    // Most events of a stream say nothing of tokens, and are many.
    if (!json.includes('"usage')) return;
    const value = parseJson(json);
    // An array: Gemini's stream without alt=sse.
    for (const o of Array.isArray(value) ? (value as unknown[]) : [value])
      for (const place of [["usage"], ["message", "usage"], ["response", "usage"], ["usageMetadata"]])
        this.#note(
          "",
          place.reduce<unknown>((v, name) => (isRecord(v) ? v[name] : undefined), o),
        );
  }

  #note(prefix: string, counts: unknown): void {
    if (!isRecord(counts)) return;
    for (const [name, value] of Object.entries(counts))
      if (typeof value === "number" && value >= 0) this.#largest.set(prefix + name, Math.max(value, this.#largest.get(prefix + name) ?? 0));
      else if (prefix === "") this.#note(`${name}.`, value);
  }
}

const usage = (...[input, output, cacheRead, cacheWrite]: [number, number, number, number]): TurnUsage => ({
  input: Math.max(0, Math.round(input)),
  ...{ output: Math.round(output), cacheRead: Math.round(cacheRead), cacheWrite: Math.round(cacheWrite) },
});
