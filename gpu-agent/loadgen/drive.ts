import { Connection } from "./connection.ts";
import type { LoadPlan, LoadResult } from "./plan.ts";
import { Transcript } from "./transcript.ts";

export interface Driven {
  readonly end: LoadResult["end"];
  readonly reason: string;
  /** In the order in which they were due. */
  readonly transcripts: readonly Transcript[];
}

/**
 * One run against one server. Opened by `open()`, started by `start()`; `start()` resolves when every request has its whole response, or at the
 * first thing that makes the run worthless (a broken response, a flood, the time limit), since the rest would only cost time.
 */
export class Drive {
  readonly #plan: LoadPlan;
  readonly #requests: readonly Buffer[];
  readonly #now: () => number;
  readonly #connections: readonly Connection[];
  readonly #transcripts: Transcript[] = [];
  /** Open loop: due, and waiting for a free connection. At most the plan's requests. */
  readonly #waiting: Transcript[] = [];
  readonly #settled = Promise.withResolvers<Driven>();
  #timer: NodeJS.Timeout | null = null;
  #next = 0;
  #ended = 0;
  #bytes = 0;
  #over = false;

  /** `now` counts milliseconds from "go"; it is not called before `start()`. */
  constructor(plan: LoadPlan, now: () => number) {
    this.#plan = plan;
    this.#now = now;
    this.#requests = plan.requests.map((r) => requestBytes(plan.path, r.body));
    const events = {
      ended: (t: Transcript) => this.#onEnd(t),
      failed: (t: Transcript, why: string) => this.#onFailure(t, why),
      received: (t: Transcript, n: number) => this.#onBytes(t, n),
    };
    this.#connections = Array.from({ length: plan.connections }, (_, i) => new Connection(i, plan.socketPath, now, events));
  }

  /** Rejects where the server does not accept the connections. */
  async open(): Promise<void> {
    await Promise.all(this.#connections.map((c) => c.open()));
  }

  start(): Promise<Driven> {
    const limit = setTimeout(() => this.#finish("limit", `not over after ${this.#plan.limitMs} ms`), this.#plan.limitMs);
    if (this.#plan.mode === "open") this.#due();
    else for (const c of this.#connections) this.#sendNext(c, 0);
    return this.#settled.promise.finally(() => clearTimeout(limit));
  }

  /** Closed loop: the client's next request is due at the very instant at which its last one ended. */
  #sendNext(connection: Connection, dueMs: number): void {
    const request = this.#requests[this.#next];
    if (!request) return;
    const transcript = new Transcript(this.#next++, connection.index, dueMs);
    transcript.noticedMs = this.#now();
    this.#transcripts.push(transcript);
    connection.send(request, transcript);
  }

  /** Open loop: everything that is due now goes out, or waits for a connection; the next timer is set. */
  #due(): void {
    for (;;) {
      const planned = this.#plan.requests[this.#next];
      if (!planned || this.#over) return;
      const wait = planned.atMs - this.#now();
      if (wait > 0) {
        // libuv's timers count whole milliseconds and round down, so one more keeps it from waking early and spinning.
        this.#timer = setTimeout(() => this.#due(), Math.ceil(wait));
        return;
      }
      const transcript = new Transcript(this.#next++, -1, planned.atMs);
      transcript.noticedMs = this.#now();
      this.#transcripts.push(transcript);
      this.#waiting.push(transcript);
      this.#drain();
    }
  }

  #drain(): void {
    while (this.#waiting.length > 0) {
      const free = this.#connections.find((c) => !c.busy);
      const transcript = this.#waiting[0];
      if (!free || !transcript) return;
      this.#waiting.shift();
      transcript.connection = free.index;
      const request = this.#requests[transcript.index];
      if (request) free.send(request, transcript);
    }
  }

  #onEnd(transcript: Transcript): void {
    if (this.#over) return;
    this.#ended++;
    if (!transcript.succeeded()) this.#finish("broken", `request ${transcript.index} was answered with another status than 200`);
    else if (this.#ended === this.#requests.length) this.#finish("complete", "");
    else if (this.#plan.mode === "open") this.#drain();
    else {
      const connection = this.#connections[transcript.connection];
      if (connection) this.#sendNext(connection, transcript.endMs);
    }
  }

  #onFailure(transcript: Transcript, why: string): void {
    transcript.error = why;
    this.#finish("broken", `request ${transcript.index}: ${why}`);
  }

  #onBytes(transcript: Transcript, count: number): void {
    this.#bytes += count;
    if (transcript.length > this.#plan.responseBytes) {
      this.#finish("flood", `request ${transcript.index} was answered with over ${this.#plan.responseBytes} bytes`);
    } else if (this.#bytes > this.#plan.totalBytes)
      this.#finish("flood", `the responses together have over ${this.#plan.totalBytes} bytes`);
  }

  #finish(end: Driven["end"], reason: string): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#timer) clearTimeout(this.#timer);
    for (const c of this.#connections) c.close();
    this.#settled.resolve({ end, reason, transcripts: this.#transcripts });
  }
}

function requestBytes(path: string, body: string): Buffer {
  const bytes = Buffer.from(body);
  const head = `POST ${path} HTTP/1.1\r\nHost: candidate\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: ${bytes.length}\r\n\r\n`;
  return Buffer.concat([Buffer.from(head, "latin1"), bytes]);
}
