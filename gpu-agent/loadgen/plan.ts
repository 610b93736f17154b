import type { Dialect } from "./event.ts";

/**
 * What the load generator is told, and what it answers. It is a process of its own that shares two cores with what it measures, so it depends on
 * nothing, sleeps while it can, and decides nothing: whether a token counts is the evaluator's affair (src/bench/verify.ts).
 *
 * Protocol, agent ↔ generator: `node main.ts PLAN RESULT`. stdout, one word a line: "ready" (connections are open, request bytes are made),
 * "ended" (the last response ended, or why not), "written" (RESULT holds a LoadResult). stdin: one line "go" starts the clock.
 */

/** All times are milliseconds after "go", on the monotonic clock. */
export interface PlannedRequest {
  /** JSON body of the POST, ready to send. */
  readonly body: string;
  /** Open loop: when it has to be sent. Ignored in a closed loop, where it is sent when the client's last one ended. */
  readonly atMs: number;
}

export interface LoadPlan {
  readonly socketPath: string;
  /** Path of the POST, such as /v1/chat/completions. */
  readonly path: string;
  readonly dialect: Dialect;
  readonly requests: readonly PlannedRequest[];
  /** closed: `connections` clients, each sends the next unsent request as soon as its last one ended. open: each request at its own instant. */
  readonly mode: "closed" | "open";
  /** Opened before "go". In an open loop more requests than this wait for a free one, and their clock runs from the scheduled instant. */
  readonly connections: number;
  /** Wall time after which everything outstanding is cut off. */
  readonly limitMs: number;
  /** Bytes of one response, and of all of them, that a candidate may send before it counts as flooding. Bounds this process's memory. */
  readonly responseBytes: number;
  readonly totalBytes: number;
}

/** One token-carrying event of a stream, stamped with the arrival of its last byte. */
export interface ChunkRecord {
  readonly atMs: number;
  readonly ids: readonly number[];
  readonly text: string;
}

/** What one request really got. Nothing in it is verified. */
export interface RequestRecord {
  /** Position in the plan. */
  readonly index: number;
  readonly connection: number;
  readonly scheduledMs: number;
  /** Null where it was due, and no connection became free for it. */
  readonly sentMs: number | null;
  readonly firstByteMs: number | null;
  /** Arrival of the response's last byte. */
  readonly endMs: number | null;
  readonly status: number | null;
  readonly chunks: readonly ChunkRecord[];
  readonly finish: string | null;
  readonly usage: { readonly promptTokens: number; readonly completionTokens: number } | null;
  /** The stream said that it is over ("[DONE]"). */
  readonly done: boolean;
  /** Why it is not a whole, well-formed stream; null when it is one. Quotes at most 300 characters of the response. */
  readonly error: string | null;
}

/** The generator's own health: whether its figures can be believed. */
export interface SelfWatch {
  /** Event-loop delay over what was asked for, in ms. */
  readonly loopDelayP99Ms: number;
  readonly loopDelayMaxMs: number;
  /** This process's own lateness, in ms: when it noticed that a request was due, less when it was. Waiting for a free connection is no part of it. */
  readonly slipP50Ms: number;
  readonly slipP99Ms: number;
  /** Its CPU time between "go" and "ended", and the wall time of that, in seconds. */
  readonly cpuS: number;
  readonly wallS: number;
  readonly rssBytes: number;
  /** The slower of two speed probes (speed-probe.ts), just before "ready" and just after "ended", in ms. */
  readonly probeMs: number;
}

export interface LoadResult {
  readonly v: 1;
  /** complete: every request got a whole response. limit: limitMs passed. flood: a response broke its bound. broken: a connection or an answer failed, so the rest was not sent. */
  readonly end: "complete" | "limit" | "flood" | "broken";
  /** For people; empty when complete. */
  readonly reason: string;
  /** Milliseconds since the Unix epoch at "go". */
  readonly startedAt: number;
  /** Requests that were sent, in plan order. */
  readonly records: readonly RequestRecord[];
  readonly self: SelfWatch;
}
