import { expect, it } from "vitest";
import { Failure, type Job, type Outcome } from "@vibeserve/shared";
import { SandboxRefused } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { StackError } from "../../gpu-agent/src/serve/running-stack.ts";
import { execute } from "../../gpu-agent/src/worker/execute.ts";
import type { JobContext, JobHandlers } from "../../gpu-agent/src/worker/job-context.ts";
import { failureOf, JobError } from "../../gpu-agent/src/worker/job-error.ts";
import { Machine } from "../../gpu-agent/src/worker/machine.ts";
import { jobContext } from "./context-kit.ts";

const spec = {
  kind: "build" as const,
  treeDigest: "0".repeat(40),
  tree: { digest: "0".repeat(64), bytes: 1 },
  provenance: "shipped" as const,
};
const job: Job = { v: 1, kind: "job", id: "j", campaign: "c", experiment: "e", attempt: 1, pool: "p", issuedAt: 1, deadlineMs: 1, spec };
const built: Outcome = { status: "built", buildDigest: "0".repeat(64), cached: false, seconds: 1, bytes: 1 };

function handlers(build: (signal: AbortSignal) => Promise<Outcome>): JobHandlers {
  const never = async (): Promise<never> => {
    throw new Error("not this one");
  };
  return { build: (_job, ctx) => build(ctx.signal), check: never, bench: never, baseline: never, profile: never, exec: never };
}

/** A handler sees nothing of the context but its signal here. */
function contextWith(signal: AbortSignal): JobContext {
  const tools = { prlimit: null, setpriv: null, taskset: null };
  const unused = async (): Promise<never> => {
    throw new Error("unused");
  };
  return jobContext(
    { kind: "none", reason: "", bwrap: null, drop: "userns", tools, unsafe: false },
    { put: unused, putFile: unused, get: unused, getFile: unused },
    { signal },
  );
}

const deadline = new JobError("harness", "deadline", "too late");

it("what fails because the job was stopped is laid to the stop, not to the candidate", async () => {
  const abort = new AbortController();
  const failing = handlers(async (signal) => {
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    throw new StackError("exited-at-start", "killed", "");
  });
  setTimeout(() => abort.abort(deadline), 10);
  const { outcome } = await execute(failing, job, contextWith(abort.signal));
  expect(outcome).toMatchObject({ status: "failed", failure: { attribution: "harness", code: "deadline" } });
});

it("a handler that ignores the stop is given up, and the agent told so", async () => {
  const abort = new AbortController();
  abort.abort(deadline);
  const deaf = handlers(() => new Promise(() => undefined));
  const execution = await execute(deaf, job, contextWith(abort.signal), 20);
  expect(execution).toMatchObject({ kind: "stuck", outcome: { failure: { attribution: "harness", code: "stuck" } } });
});

it("a result that comes although the job was stopped is kept", async () => {
  const abort = new AbortController();
  abort.abort(deadline);
  const execution = await execute(
    handlers(async () => built),
    job,
    contextWith(abort.signal),
    1000,
  );
  expect(execution).toEqual({ kind: "done", outcome: built });
});

it("what no message can carry is answered as the harness's failure, and says what it was", async () => {
  const gate = { name: "n".repeat(5000), value: 1, unit: "", limit: "", ok: true };
  const report = { ok: true, level: "screen" as const, gates: Array(64).fill(gate) as (typeof gate)[], positions: 1, servedTokens: 1 };
  const outcomes: [Outcome, RegExp][] = [
    [{ ...built, seconds: Infinity }, /what the job came to \("built"\): .*seconds: .*number/],
    [{ status: "checked", seconds: 1, report: { ...report, firstFailure: null } }, /"checked".*: .*bytes/],
  ];
  for (const [outcome, message] of outcomes) {
    const work = handlers(async () => outcome);
    const answer = await execute(work, job, contextWith(new AbortController().signal));
    expect(answer).toMatchObject({ kind: "done", outcome: { status: "failed", failure: { attribution: "harness", code: "unsendable" } } });
    expect(answer.outcome).toMatchObject({ failure: { message: expect.stringMatching(message) as string } });
  }
});

it("every failure has an attribution: only what the candidate did is the candidate's", () => {
  const errors: [unknown, string, string][] = [
    [new StackError("health-timeout", "m", ""), "candidate", "health-timeout"],
    [new JobError("network", "artifact-unavailable", "m"), "network", "artifact-unavailable"],
    [new SandboxRefused("m"), "device", "no-sandbox"],
    [Object.assign(new Error("write"), { code: "ENOSPC" }), "device", "disk-full"],
    [new TypeError("a bug"), "harness", "internal"],
    ["a string", "harness", "internal"],
  ];
  for (const [error, attribution, code] of errors) expect(Failure.parse(failureOf(error))).toMatchObject({ attribution, code });
  const long = failureOf(new JobError("candidate", "x", "m".repeat(9000), "l".repeat(20_000)));
  expect(Failure.parse(long).logTail).toHaveLength(8000);
});

it("a machine runs one piece of work at a time, in order, whatever becomes of those before", async () => {
  const machine = new Machine();
  const said: string[] = [];
  const gate = Promise.withResolvers<undefined>();
  const first = machine.alone(async () => {
    said.push("first");
    await gate.promise;
    throw new Error("first failed");
  });
  const second = machine.alone(async () => void said.push("second"));
  await Promise.resolve();
  expect(said).toEqual(["first"]);
  gate.resolve(undefined);
  await expect(first).rejects.toThrow("first failed");
  await second;
  expect(said).toEqual(["first", "second"]);
});
