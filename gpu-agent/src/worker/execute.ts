import { CodecError, encode, MAX_MESSAGE_BYTES, Outcome, type Job } from "@vibeserve/shared";
import type { JobContext, JobHandlers } from "./job-context.ts";
import { failureOf, JobError } from "./job-error.ts";

/** A handler has this long after the abort to stop its processes (TERM, KILL, verify: 7 s at worst) and clean up. */
const STUCK_MS = 20_000;

export type Execution =
  | { readonly kind: "done"; readonly outcome: Outcome }
  /** It ignored the abort; whatever it still does, this process should not go on. */
  | { readonly kind: "stuck"; readonly outcome: Outcome };

/**
 * Runs the job's handler to an outcome; never rejects. A failure after the abort is the abort's: what fails because it was stopped says nothing about
 * the candidate. A soft timeout is not a timeout, so a handler that does not stop is given up. An outcome that can't be sent is the harness's failure.
 */
export async function execute(handlers: JobHandlers, job: Job, ctx: JobContext, stuckMs = STUCK_MS): Promise<Execution> {
  const { promise: givenUp, stop } = afterAbort(ctx.signal, stuckMs);
  try {
    const work = dispatch(handlers, job, ctx).then(
      (outcome): Execution => ({ kind: "done", outcome: sendable(outcome) }),
      (error: unknown): Execution => ({ kind: "done", outcome: failed(ctx.signal.aborted ? ctx.signal.reason : error) }),
    );
    return await Promise.race([work, givenUp]);
  } finally {
    stop();
  }
}

function dispatch(handlers: JobHandlers, job: Job, ctx: JobContext): Promise<Outcome> {
  const { spec, ...rest } = job;
  switch (spec.kind) {
    case "build":
      return handlers.build({ ...rest, spec }, ctx);
    case "check":
      return handlers.check({ ...rest, spec }, ctx);
    case "bench":
      return handlers.bench({ ...rest, spec }, ctx);
    case "baseline":
      return handlers.baseline({ ...rest, spec }, ctx);
    case "profile":
      return handlers.profile({ ...rest, spec }, ctx);
    case "exec":
      return handlers.exec({ ...rest, spec }, ctx);
  }
}

/** What a result holds beside its outcome; ids and a signature are far below it. */
const ENVELOPE_BYTES = 4096;

/** What no message can carry (a number that is not finite, too many bytes) would be worked out anew at each delivery, for ever: it is answered in words. */
function sendable(outcome: Outcome): Outcome {
  let why: string;
  try {
    const { length } = encode(Outcome, outcome, "outcome");
    if (length <= MAX_MESSAGE_BYTES - ENVELOPE_BYTES) return outcome;
    why = `it has ${length} bytes`;
  } catch (error) {
    if (!(error instanceof CodecError)) throw error;
    why = error.message;
  }
  return failed(new JobError("harness", "unsendable", `no message can carry what the job came to ("${outcome.status}"): ${why}`));
}

function afterAbort(signal: AbortSignal, stuckMs: number): { promise: Promise<Execution>; stop: () => void } {
  let timer: NodeJS.Timeout | undefined;
  const { promise, resolve } = Promise.withResolvers<Execution>();
  const aborted = (): void => {
    timer = setTimeout(() => {
      const why = `the job did not stop within ${stuckMs} ms of: ${failureOf(signal.reason).message}`;
      resolve({ kind: "stuck", outcome: failed(new JobError("harness", "stuck", why)) });
    }, stuckMs);
  };
  if (signal.aborted) aborted();
  else signal.addEventListener("abort", aborted, { once: true });
  return {
    promise,
    stop: () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
    },
  };
}

const failed = (error: unknown): Outcome => ({ status: "failed", failure: failureOf(error) });
