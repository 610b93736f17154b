import type { ChatMessage } from "../../tokenizer/index.ts";
import { CandidateFault, quote } from "./candidate-fault.ts";
import { HttpClient, type SseReply } from "./http-client.ts";
import type { Watch } from "./watch.ts";
import { ChatChunk, CompletionAnswer, expectShape, ModelList, PlainAnswer, ScoreAnswer, type Usage } from "./wire.ts";

export interface ChatRequest {
  readonly messages: readonly ChatMessage[];
  readonly maxTokens: number;
  readonly ignoreEos?: boolean;
  readonly stop?: readonly string[];
  /** Default: greedy. */
  readonly sampling?: Sampling;
}
export interface Sampling {
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
}
export interface PlainRequest {
  readonly prompt: string | readonly number[];
  readonly maxTokens: number;
  readonly model?: string;
  /** Default: greedy. */
  readonly sampling?: Sampling;
}
export interface ServedAnswer {
  readonly ids: readonly number[];
  readonly text: string;
  readonly finish: "stop" | "length" | null;
  readonly usage: Usage | null;
  /** Chunks that carried ids. */
  readonly idChunks: number;
  readonly done: boolean;
  readonly seconds: number;
}
export interface LogprobAnswer {
  readonly ids: readonly number[];
  readonly text: string;
  readonly finish: "stop" | "length";
  readonly usage: Usage;
  readonly tokenLogprobs: readonly number[];
  /** Per token: reported id → log-probability. */
  readonly top: readonly ReadonlyMap<number, number>[];
}

/** JSON of one number takes up to 25 bytes; 32 leave room for white space. */
const BYTES_PER_NUMBER = 32;
/** An SSE chunk with ids, names and a token's text. */
const BYTES_PER_CHUNK = 4096;
const BYTES_BESIDE = 1 << 16;

/** The candidate's contract as calls. Every wrong shape is a CandidateFault. */
export class Candidate implements Disposable {
  readonly #http: HttpClient;

  constructor(socketPath: string, watch: Watch) {
    this.#http = new HttpClient(socketPath, watch);
  }

  async expectHealthy(): Promise<void> {
    const { status } = await this.#http.get("/health");
    if (status !== 200) throw new CandidateFault(`GET /health answered ${status}`);
  }

  /** The ids that /v1/models lists. */
  async models(): Promise<string[]> {
    const { status, json } = await this.#http.get("/v1/models");
    if (status !== 200) throw new CandidateFault(`GET /v1/models answered ${status}`);
    return expectShape(ModelList, json, "GET /v1/models").data.map((m) => m.id);
  }

  /** A completion that is neither streamed nor has log-probabilities; `model` is the name that it carries. */
  async plain({ prompt, maxTokens, model, sampling }: PlainRequest): Promise<ServedAnswer & { readonly model: string }> {
    const started = performance.now();
    const body = { prompt, max_tokens: maxTokens, ignore_eos: true, ...(model !== undefined && { model }), ...samplingFields(sampling) };
    const json = await this.#completion(body, BYTES_BESIDE + maxTokens * BYTES_PER_CHUNK);
    const answer = expectShape(PlainAnswer, json, "POST /v1/completions");
    const { text, token_ids: ids, finish_reason: finish } = answer.choices[0]!;
    const whole = { idChunks: ids.length, done: true, seconds: (performance.now() - started) / 1000 };
    return { model: answer.model, ids, text, finish, usage: answer.usage, ...whole };
  }

  /** A streamed chat. */
  async chat(request: ChatRequest): Promise<ServedAnswer> {
    const started = performance.now();
    const reply = await this.#http.stream("/v1/chat/completions", chatBody(request), {
      maxBytes: BYTES_BESIDE + (request.maxTokens + 8) * BYTES_PER_CHUNK,
    });
    if (reply.status !== 200)
      throw new CandidateFault(`POST /v1/chat/completions answered ${reply.status}: ${quote(JSON.stringify(reply.json))}`);
    return answerOf(reply, (performance.now() - started) / 1000);
  }

  /** Starts a long streamed chat and hangs up after its first chunk with ids. */
  async chatAndHangUp(messages: readonly ChatMessage[], maxTokens: number): Promise<void> {
    const { events } = await this.#http.stream("/v1/chat/completions", chatBody({ messages, maxTokens, ignoreEos: true }), {
      maxBytes: BYTES_BESIDE + maxTokens * BYTES_PER_CHUNK,
      onEvent: (event) => (hasIds(event) ? "hang-up" : undefined),
    });
    if (!events.some(hasIds)) throw new CandidateFault("a streamed answer had no chunk with token_ids");
  }

  /** A greedy completion of ids with log-probabilities of the `top` most likely ids. */
  async complete(prompt: readonly number[], maxTokens: number, top: number): Promise<LogprobAnswer> {
    const body = { prompt, max_tokens: maxTokens, temperature: 0, logprobs: top, ignore_eos: true };
    const maxBytes = BYTES_BESIDE + maxTokens * (top + 8) * 2 * BYTES_PER_NUMBER;
    const json = await this.#completion(body, maxBytes);
    const answer = expectShape(CompletionAnswer, json, "POST /v1/completions");
    const choice = answer.choices[0]!;
    const { logprobs } = choice;
    const n = choice.token_ids.length;
    for (const [name, list] of Object.entries(logprobs)) {
      if (list.length !== n) throw new CandidateFault(`logprobs.${name} has ${list.length} entries for ${n} token_ids`);
    }
    if (logprobs.token_ids.some((id, i) => id !== choice.token_ids[i]))
      throw new CandidateFault("logprobs.token_ids differ from token_ids");
    return {
      ids: choice.token_ids,
      text: choice.text,
      finish: choice.finish_reason,
      usage: answer.usage,
      tokenLogprobs: logprobs.token_logprobs,
      top: logprobs.top_logprobs.map((entry) => new Map(Object.entries(entry).map(([id, logprob]) => [Number(id), logprob]))),
    };
  }

  /** Log-probabilities of the queried ids after each position, in the query's shape. */
  async score(tokens: readonly number[], query: readonly (readonly number[])[]): Promise<number[][]> {
    const asked = query.reduce((n, q) => n + q.length, 0);
    const { status, json } = await this.#http.post(
      "/v1/score",
      { sequences: [tokens], query: [query] },
      {
        maxBytes: BYTES_BESIDE + (asked + tokens.length) * BYTES_PER_NUMBER,
      },
    );
    if (status !== 200) throw new CandidateFault(`POST /v1/score answered ${status}: ${quote(JSON.stringify(json))}`);
    const { logprobs } = expectShape(ScoreAnswer, json, "POST /v1/score");
    const [rows] = logprobs;
    if (logprobs.length !== 1 || rows?.length !== query.length)
      throw new CandidateFault("POST /v1/score: logprobs has not the query's shape");
    rows.forEach((row, j) => {
      if (row.length !== query[j]!.length)
        throw new CandidateFault(`POST /v1/score: ${row.length} numbers at position ${j}, ${query[j]!.length} were asked for`);
      const bad = row.find((v) => v > 1e-3);
      if (bad !== undefined) throw new CandidateFault(`POST /v1/score: log-probability ${bad} at position ${j}`);
    });
    return rows;
  }

  /** Any request, to see how it is refused. */
  refused(path: string, body: unknown): Promise<{ status: number; json: unknown }> {
    return this.#http.post(path, body, { maxBytes: BYTES_BESIDE, anyBody: true });
  }

  [Symbol.dispose](): void {
    this.#http[Symbol.dispose]();
  }

  async #completion(body: unknown, maxBytes: number): Promise<unknown> {
    const { status, json } = await this.#http.post("/v1/completions", body, { maxBytes });
    if (status !== 200) throw new CandidateFault(`POST /v1/completions answered ${status}: ${quote(JSON.stringify(json))}`);
    return json;
  }
}

const samplingFields = (s?: Sampling): Record<string, number> =>
  s ? { temperature: s.temperature, top_p: s.topP, seed: s.seed } : { temperature: 0 };

function chatBody(r: ChatRequest): Record<string, unknown> {
  return {
    messages: r.messages,
    max_tokens: r.maxTokens,
    stream: true,
    stream_options: { include_usage: true },
    ...samplingFields(r.sampling),
    ...(r.ignoreEos === true && { ignore_eos: true }),
    ...(r.stop && { stop: r.stop }),
  };
}

function answerOf(reply: SseReply, seconds: number): ServedAnswer {
  const ids: number[] = [];
  let text = "";
  let finish: ServedAnswer["finish"] = null;
  let usage: Usage | null = null;
  let idChunks = 0;
  for (const event of reply.events) {
    const chunk = expectShape(ChatChunk, event, "chunk");
    usage = chunk.usage ?? usage;
    const [choice] = chunk.choices;
    if (!choice) continue;
    const more = choice.token_ids ?? [];
    if (finish !== null && (more.length > 0 || choice.delta.content))
      throw new CandidateFault("a chunk with text or ids came after finish_reason");
    ids.push(...more);
    if (more.length > 0) idChunks++;
    text += choice.delta.content ?? "";
    finish = choice.finish_reason ?? finish;
  }
  return { ids, text, finish, usage, idChunks, done: reply.done, seconds };
}

const hasIds = (event: unknown): boolean => (expectShape(ChatChunk, event, "chunk").choices[0]?.token_ids?.length ?? 0) > 0;
