import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { rmSync } from "node:fs";
import { createRng, type Rng } from "../../shared/src/index.ts";
import type { Reference, SequenceScores } from "../../gpu-agent/src/accuracy/index.ts";
import type { ChatMessage, Tokenizer } from "../../gpu-agent/src/tokenizer/index.ts";

/** One decision of a generation; `id` null: the answer ends here. */
export interface Step {
  readonly id: number | null;
  readonly scores: SequenceScores;
}
export interface FakeOptions {
  readonly socketPath: string;
  readonly tokenizer: Tokenizer;
  /** What it computes with, honestly. */
  readonly reference: Reference;
  /** What it generates with, if something else. */
  readonly served?: (inFlight: number) => Reference;
  readonly cheat?: Cheat;
}
/** Where a candidate may lie. Each hook replaces the honest word. */
export interface Cheat {
  readonly id?: (id: number, index: number, prompt: readonly number[]) => number;
  readonly stopAt?: (maxTokens: number) => number;
  readonly chunk?: (ids: number[]) => number[][];
  readonly usage?: (completionTokens: number) => number;
  readonly text?: (text: string) => string;
  readonly logprob?: (logprob: number, path: "score" | "completions") => number;
  readonly acceptUnknown?: boolean;
  readonly ignoreStop?: boolean;
  readonly models?: string[];
  readonly promptText?: (prompt: string) => string;
  readonly seed?: (seed: number) => number;
  readonly keepGoingMs?: number;
  /** Takes over a request; true: it was answered, or never will be. */
  readonly hijack?: (path: string, response: ServerResponse, count: number) => boolean;
}

interface Body {
  readonly messages?: ChatMessage[];
  readonly prompt?: string | number[];
  readonly max_tokens?: number;
  readonly stop?: string[];
  readonly temperature?: number;
  readonly top_p?: number;
  readonly seed?: number;
  readonly ignore_eos?: boolean;
  readonly logprobs?: number;
  readonly sequences?: number[][];
  readonly query?: number[][][];
}
const MODEL = "fake.gguf";
const FIELDS = new Set(
  "model messages prompt stream max_tokens max_completion_tokens stop temperature top_p seed ignore_eos stream_options n prediction logprobs sequences query".split(
    " ",
  ),
);

/** A candidate that speaks the whole contract over a unix socket, backed by the reference itself; with `cheat`, one that lies in one place. */
export class FakeCandidate {
  readonly #o: FakeOptions;
  readonly #cheat: Cheat;
  readonly #server = createServer((req, res) => void this.#handle(req, res));
  #inFlight = 0;
  #count = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #pending: { tokens: number[]; resolve: (s: SequenceScores) => void; reject: (e: unknown) => void; by: Reference }[] = [];

  private constructor(options: FakeOptions) {
    this.#o = options;
    this.#cheat = options.cheat ?? {};
  }

  static async start(options: FakeOptions): Promise<FakeCandidate> {
    const fake = new FakeCandidate(options);
    rmSync(options.socketPath, { force: true });
    await new Promise<void>((resolve) => fake.#server.listen(options.socketPath, resolve));
    return fake;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const path = req.url ?? "";
    let text = "";
    for await (const chunk of req) text += String(chunk);
    if (this.#cheat.hijack?.(path, res, this.#count++)) return;
    const body = (text === "" ? {} : JSON.parse(text)) as Body;
    const refuse = (field: string): void => {
      res.writeHead(400, { "content-type": "application/json" });
      res.end(JSON.stringify({ error: { message: `the field ${field} is not served`, type: "invalid_request_error", param: field } }));
    };
    const unknown = Object.keys(body).find((k) => !FIELDS.has(k));
    const refused =
      unknown !== undefined && this.#cheat.acceptUnknown !== true ? unknown : (body.max_tokens ?? 0) > 4000 ? "max_tokens" : null;
    if (refused !== null) {
      refuse(refused);
      return;
    }
    this.#inFlight++;
    try {
      if (path === "/health") res.end('{"status":"ok"}');
      else if (path === "/v1/models") res.end(JSON.stringify(this.#models()));
      else if (path === "/v1/score") res.end(JSON.stringify({ logprobs: await this.#score(body) }));
      else if (path === "/v1/chat/completions") await this.#chatInTurn(body, res);
      else if (path === "/v1/completions") res.end(JSON.stringify(await this.#complete(body)));
      else res.writeHead(404).end();
    } catch {
      res.destroy();
    } finally {
      this.#inFlight--;
    }
  }

  #models(): unknown {
    return { object: "list", data: (this.#cheat.models ?? [MODEL]).map((id) => ({ id, object: "model" })) };
  }

  async #score(body: Body): Promise<number[][][]> {
    return Promise.all(
      body.sequences!.map(async (tokens, i) => {
        const query = body.query![i]!;
        const extras = query.flatMap((ids, position) => ids.map((id) => ({ position, id })));
        const from = Math.min(...extras.map((e) => e.position));
        const [scores] = await this.#o.reference.score([{ tokens, from, extras }]);
        let at = 0;
        return query.map((ids) => ids.map(() => this.#said(scores!.extras[at++]!, "score")));
      }),
    );
  }

  #said(logprob: number, path: "score" | "completions"): number {
    return this.#cheat.logprob?.(logprob, path) ?? logprob;
  }

  /** An engine that goes on for absent clients serves one at a time, so that the next has to wait. */
  async #chatInTurn(body: Body, res: ServerResponse): Promise<void> {
    const rest = this.#cheat.keepGoingMs;
    if (rest === undefined) return this.#chat(body, res);
    const turn = this.#turn.then(() => this.#chat(body, res));
    this.#turn = turn.then(() => (res.writableEnded ? undefined : new Promise((resolve) => setTimeout(resolve, rest))));
    await turn;
  }

  async #chat(body: Body, res: ServerResponse): Promise<void> {
    res.writeHead(200, { "content-type": "text/event-stream" });
    const send = (event: unknown): void => void res.write(`data: ${JSON.stringify(event)}\n\n`);
    const prompt = this.#o.tokenizer.encodeChat(body.messages!);
    const ids: number[] = [];
    let shown = "";
    let finish = "length";
    for await (const { id } of this.#generate(prompt, body)) {
      if (res.destroyed) return;
      if (id === null) {
        finish = "stop";
        break;
      }
      ids.push(id);
      const all = this.#o.tokenizer.decode(ids);
      const stop = body.stop?.find((s) => all.includes(s));
      const visible = stop !== undefined && this.#cheat.ignoreStop !== true ? all.slice(0, all.indexOf(stop)) : all.replace(/\uFFFD+$/, "");
      // A stop string that may be beginning holds text back.
      const held =
        body.stop?.some((s) => Array.from(s, (_, n) => s.slice(0, n)).some((start) => start !== "" && visible.endsWith(start))) === true &&
        stop === undefined;
      const fresh = held || visible.length < shown.length ? "" : visible.slice(shown.length);
      shown += fresh;
      const parts = this.#cheat.chunk?.([id]) ?? [[id]];
      parts.forEach((part, i) => {
        send({
          choices: [
            { index: 0, delta: { content: i === 0 ? (this.#cheat.text?.(fresh) ?? fresh) : "" }, token_ids: part, finish_reason: null },
          ],
        });
      });
      if (stop !== undefined && this.#cheat.ignoreStop !== true) {
        finish = "stop";
        break;
      }
    }
    const rest = finish === "length" ? this.#o.tokenizer.decode(ids).slice(shown.length) : "";
    send({ choices: [{ index: 0, delta: { content: rest }, token_ids: [], finish_reason: finish }] });
    const completion = this.#cheat.usage?.(ids.length) ?? ids.length;
    send({ choices: [], usage: { prompt_tokens: prompt.length, completion_tokens: completion, total_tokens: prompt.length + completion } });
    res.end("data: [DONE]\n\n");
  }

  async #complete(body: Body): Promise<unknown> {
    const read = this.#cheat.promptText ?? ((text: string) => text);
    const prompt = typeof body.prompt === "string" ? this.#o.tokenizer.encode(read(body.prompt)) : body.prompt!;
    const steps: { id: number; scores: SequenceScores }[] = [];
    for await (const { id, scores } of this.#generate(prompt, body)) if (id !== null) steps.push({ id, scores });
    const ids = steps.map((s) => s.id);
    const n = body.logprobs ?? 0;
    const said = (s: SequenceScores, k: number): number => this.#said(s.logprobs[k]!, "completions");
    const logprobs = {
      tokens: ids.map((id) => this.#o.tokenizer.decode([id])),
      token_ids: ids,
      token_logprobs: steps.map(({ id, scores }) => said(scores, scores.ids.indexOf(id))),
      top_logprobs: steps.map(({ scores }) =>
        Object.fromEntries(Array.from({ length: n }, (_, k) => [String(scores.ids[k]!), said(scores, k)])),
      ),
    };
    return {
      model: MODEL,
      choices: [{ index: 0, text: this.#o.tokenizer.decode(ids), token_ids: ids, finish_reason: "length", logprobs }],
      usage: { prompt_tokens: prompt.length, completion_tokens: ids.length, total_tokens: prompt.length + ids.length },
    };
  }

  async *#generate(prompt: readonly number[], body: Body): AsyncGenerator<Step> {
    const limit = body.max_tokens ?? 16;
    const rng = createRng(String(this.#cheat.seed?.(body.seed ?? 0) ?? body.seed ?? 0));
    const ids: number[] = [];
    const end = Math.min(limit, this.#cheat.stopAt?.(limit) ?? limit);
    while (ids.length < end) {
      const scores = await this.#predict([...prompt, ...ids]);
      const honest = (body.temperature ?? 1) === 0 ? scores.ids[0]! : sample(scores, body.top_p ?? 1, rng);
      const id = this.#cheat.id?.(honest, ids.length, prompt) ?? honest;
      if (id === this.#o.tokenizer.eosId && body.ignore_eos !== true) {
        yield { id: null, scores };
        return;
      }
      ids.push(id);
      yield { id, scores };
    }
    if (end < limit) yield { id: null, scores: await this.#predict([...prompt, ...ids]) };
  }

  /** Collects what the running requests ask in one turn: batching, as a real engine does it. */
  #predict(tokens: number[]): Promise<SequenceScores> {
    const by = this.#o.served?.(this.#inFlight) ?? this.#o.reference;
    return new Promise((resolve, reject) => {
      this.#pending.push({ tokens, resolve, reject, by });
      if (this.#pending.length === 1) setImmediate(() => void this.#step());
    });
  }

  async #step(): Promise<void> {
    const batch = this.#pending;
    this.#pending = [];
    for (const by of new Set(batch.map((b) => b.by))) {
      const own = batch.filter((b) => b.by === by);
      try {
        const scores = await by.score(own.map(({ tokens }) => ({ tokens, from: tokens.length - 1 })));
        own.forEach((b, i) => b.resolve(scores[i]!));
      } catch (error) {
        own.forEach((b) => b.reject(error));
      }
    }
  }
}

function sample(s: SequenceScores, topP: number, rng: Rng): number {
  let total = 0;
  let kept = 0;
  while (kept < s.top && total < topP) total += Math.exp(s.logprobs[kept++]!);
  let at = rng.next() * total;
  for (let k = 0; k < kept; k++) if ((at -= Math.exp(s.logprobs[k]!)) <= 0) return s.ids[k]!;
  return s.ids[0]!;
}
