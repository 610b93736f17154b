import type { Failure } from "@vibeserve/shared";
import { SandboxRefused } from "../sandbox/sandbox.ts";
import { StackError } from "../serve/running-stack.ts";

/** A failure whose cause is known (I8). `code` is one NATS-safe word, stable; message is for people; logTail is untrusted text, already cleaned. */
export class JobError extends Error {
  readonly attribution: Failure["attribution"];
  readonly code: string;
  readonly logTail: string;
  /** Of several devices the one whose failure it is. */
  readonly device: string | undefined;
  constructor(attribution: Failure["attribution"], code: string, message: string, logTail = "", device?: string) {
    super(message);
    this.name = "JobError";
    this.attribution = attribution;
    this.code = code;
    this.logTail = logTail;
    this.device = device;
  }
}

/** Any thrown value as a Failure. What nobody attributed is the harness's own fault, never the candidate's. */
export function failureOf(error: unknown): Failure {
  if (error instanceof JobError) return failure(error.attribution, error.code, error.message, error.logTail, error.device);
  if (error instanceof StackError) return failure("candidate", error.code, error.message, error.logTail);
  if (error instanceof SandboxRefused) return failure("device", "no-sandbox", error.message, "");
  const errno = error instanceof Error && "code" in error ? error.code : null;
  if (errno === "ENOSPC" || errno === "EDQUOT")
    return failure("device", "disk-full", `no space is left on this agent's disk: ${String(error)}`, "");
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return failure("harness", "internal", message, "");
}

function failure(attribution: Failure["attribution"], code: string, message: string, logTail: string, device?: string): Failure {
  const named = device === undefined ? {} : { device };
  return { attribution, code, message: message.slice(0, 4000), ...named, logTail: logTail.slice(-8000) };
}
