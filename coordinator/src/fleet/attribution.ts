import type { JobResult, Outcome, Verdict } from "@vibeserve/shared";
import type { Blameless } from "../campaign/counting.ts";
import type { Health } from "./health.machine.ts";
import { impossible } from "./impossible.ts";

/**
 * Whose a failure is, from evidence: candidate, device, harness, network (I8). The agent speaks first, since it sees exit codes, limits and sensors; here its word is held
 * against what only the coordinator knows: the device's record, other devices, and what the numbers say of themselves. Pure.
 *   A1. What a limit of the candidate's own ended (memory, output, time to build nothing) is its own at once.
 *   A2. What a device can cause (a signal, a hang, wrong numbers) counts against the candidate only on the word of a second device, where there is one or the device is suspect.
 *   A3. One job is doubted once: the second verdict counts, whatever it is.
 *   A4. Numbers that can't be are the device's failure, and never an answer.
 */
export interface Evidence {
  result: Pick<JobResult, "outcome" | "deviceId" | "leaseToken">;
  /** Of the device, when the result came. */
  health: Health;
  /** Good, ready devices that could take the job, this one left out. */
  others: () => number;
  /** The device whose failure of this job is held back. */
  doubted: string | null;
}

/** Null: it counts as its agent said. */
export function verdictOf({ result, health, others, doubted }: Evidence): Verdict | null {
  const { outcome, deviceId } = result;
  const wrong = impossible(result);
  if (wrong !== null)
    return {
      attribution: "device",
      code: "impossible-numbers",
      secondDevice: false,
      why: `device ${deviceId} reports what can't be: ${wrong}`,
    };
  const how = deviceLike(outcome);
  if (how === null || doubted !== null || (health === "good" && others() === 0)) return null;
  const record = health === "good" ? "" : `, which is ${health}`;
  return {
    ...{ attribution: "candidate", code: outcome.status === "failed" ? outcome.failure.code : "wrong-numbers", secondDevice: true },
    why: `${how} on device ${deviceId}${record}: a second device's verdict is asked for`,
  };
}

/** What a sick device does to a sound candidate. Its own memory limit, a bad manifest, a compiler's error and an exit code are not among it. */
const HANGS: readonly string[] = ["health-timeout", "run-timeout", "broken-stream", "deadline"];
/** How a process ended that its agent did not stop: the agent stops with SIGTERM and SIGKILL too, but then says why (memory-limit, deadline). */
const SIGNALS = /\bby (SIG(?:SEGV|BUS|ILL|FPE|ABRT|KILL|TRAP))\b/;

function deviceLike(outcome: Outcome): string | null {
  if (outcome.status === "checked") return outcome.report.ok ? null : "wrong numbers";
  if (outcome.status !== "failed" || outcome.failure.attribution !== "candidate") return null;
  const { code, message } = outcome.failure;
  if (HANGS.includes(code)) return code;
  if (code === "memory-limit") return null;
  const signal = SIGNALS.exec(message)?.[1];
  // No limit of the candidate's was passed: the machine's own memory may have run out.
  return signal === "SIGKILL" ? `${code}: killed by none of its own limits` : signal === undefined ? null : `${code} by ${signal}`;
}

/** How a lease ended without an answer. gone: its device is not there any more. */
export type LostBy = "silence" | "restart" | "deadline" | "revoked" | "gone";

/** A gap in the heartbeats is the network's until its result comes late; a device that is gone is the device's; all else is the harness's. */
export const attributionOfLoss = (by: LostBy): Blameless => (by === "silence" ? "network" : by === "gone" ? "device" : "harness");
