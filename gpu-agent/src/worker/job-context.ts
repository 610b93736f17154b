import type { ArtifactRef, Device, Job, JobSpec, Lease, Outcome, Tool } from "@vibeserve/shared";
import type { Sandbox } from "../sandbox/sandbox.ts";

/** Artifacts by sha256: a local cache before the coordinator's object store. Bytes are checked against the digest on every read. */
export interface ArtifactStore {
  put(bytes: Uint8Array): Promise<ArtifactRef>;
  /** maxBytes: more is refused; 256 MiB by default. */
  putFile(path: string, maxBytes?: number): Promise<ArtifactRef>;
  get(ref: ArtifactRef, maxBytes?: number): Promise<Uint8Array>;
  /** Path of a verified local copy; read it at once, the cache may drop it later. */
  getFile(ref: ArtifactRef, maxBytes?: number): Promise<string>;
}

/** What a job handler gets beside the job. */
export interface JobContext {
  readonly lease: Lease;
  /** The first of `devices`, with the processors that are near to any of them. */
  readonly device: Device;
  /** All that the job has, in the order in which a stack sees them. */
  readonly devices: readonly Device[];
  readonly agentId: string;
  readonly tools: readonly Tool[];
  /** Aborted at the job's deadline, when the lease is lost, and when the agent must go. Its reason is a JobError. */
  readonly signal: AbortSignal;
  /** Says what is going on; sent at most every 2 s, and keeps the lease alive. */
  progress(phase: string): void;
  readonly artifacts: ArtifactStore;
  readonly sandbox: Sandbox;
  /** A line of the job's own log, which goes to the artifact store. */
  log(line: string): void;
  /** base64 of the agent's NKey signature over canonicalJson(value). */
  sign(value: unknown): string;
}

export type JobOf<S extends JobSpec> = Omit<Job, "spec"> & { readonly spec: S };
export type JobHandler<S extends JobSpec> = (job: JobOf<S>, ctx: JobContext) => Promise<Outcome>;

/** One handler a job kind. A handler returns an outcome for what is expected, and throws StackError or JobError for attributed failures. */
export type JobHandlers = { readonly [K in JobSpec["kind"]]: JobHandler<Extract<JobSpec, { kind: K }>> };

/** Says what is going on to whoever watches the job, and in its log. */
export const sayOf =
  (ctx: Pick<JobContext, "progress" | "log">) =>
  (phase: string): void => {
    ctx.progress(phase);
    ctx.log(phase);
  };
