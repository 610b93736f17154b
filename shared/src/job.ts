import { z } from "zod";
import { BuildOutput, BuildTarget } from "./build-target.ts";
import { MAX_DEVICES, SandboxKind } from "./device.ts";
import { ArtifactRef, Digest, Id, Instant, TreeHash } from "./ids.ts";
import { ArmRole, CheckReport, Comparison, Measurement } from "./measurement.ts";
import { message } from "./message.ts";
import { Metric } from "./metric.ts";
import { ModelFormat } from "./model-shape.ts";
import { Profile, Roofline } from "./profile.ts";
import { Workload } from "./target.ts";

/** format: absent for one GGUF file; "hf": `file` names a folder and `sha256` is its folderDigest. */
export const ModelRef = z.strictObject({ name: z.string(), file: z.string(), sha256: Digest, format: ModelFormat.optional() });
/** Who wrote the code: "shipped" with the product, or written by a "model". Only shipped code may run where there is no sandbox. */
export const Provenance = z.enum(["shipped", "model"]);
export type Provenance = z.infer<typeof Provenance>;

/** output: what its builder stored of it; who has not built it takes that. Absent: it is built from the tree again. */
export const BuiltStack = z.strictObject({
  treeDigest: TreeHash,
  tree: ArtifactRef,
  buildDigest: Digest,
  provenance: Provenance,
  output: BuildOutput.optional(),
});
export type BuiltStack = z.infer<typeof BuiltStack>;

/** tree: a tar of the candidate's git tree in the object store. */
export const BuildSpec = z.strictObject({
  kind: z.literal("build"),
  treeDigest: TreeHash,
  tree: ArtifactRef,
  provenance: Provenance,
  /** Present: more than one agent may need the build, so what it makes is stored. Absent: for the device of the agent that builds it. */
  for: BuildTarget.optional(),
});

export const CheckSpec = z.strictObject({
  kind: z.literal("check"),
  stack: BuiltStack,
  model: ModelRef,
  level: z.enum(["screen", "crown", "public"]),
  accuracy: z.enum(["exact", "lossy"]),
});

export const Arm = z.strictObject({
  role: ArmRole,
  stack: z.discriminatedUnion("source", [
    z.strictObject({ source: z.literal("build"), build: BuiltStack }),
    /** setting: a name of the recipe's sweep; null: the strongest one that this agent's sweep found. */
    z.strictObject({ source: z.literal("baseline"), engine: z.string(), setting: z.string().nullable() }),
  ]),
});
export type Arm = z.infer<typeof Arm>;

/** One pair has no spread, hence no interval that a result could state. */
const PairCount = z.int().min(2, "a comparison needs at least 2 pairs: one has no interval");

/** Champion and challenger interleaved (ABBA …) on one lease. Seeds are drawn by the agent, fresh for each run. */
export const BenchSpec = z.strictObject({
  kind: z.literal("bench"),
  /** quick: what an implementing agent asked for; it decides nothing. canary: a known stack against itself; it judges the device, and no campaign has asked for it. */
  purpose: z.enum(["screen", "crown", "repeat", "seed", "baseline", "quick", "canary"]),
  challenger: Arm,
  champion: Arm,
  model: ModelRef,
  workload: Workload,
  metric: Metric,
  pairs: z.strictObject({ min: PairCount, max: PairCount }),
  confidence: z.number().gt(0.5).lt(1),
  /** A run of one arm that takes longer is stopped and counts as the candidate's failure. */
  runLimitMs: z.int().min(1),
});

/** Install a baseline's engine and sweep its settings on this device: makes later bench arms possible. */
export const BaselineSpec = z.strictObject({
  kind: z.literal("baseline"),
  engine: z.string(),
  model: ModelRef,
  workload: Workload,
  metric: Metric,
});

/**
 * Where a stack's time goes while it serves `workload`: made by the agent, so an agent's model sees the device and not a guess. It never ranks anything:
 * a profiler disturbs what it looks at, and says by how much.
 */
export const ProfileSpec = z.strictObject({ kind: z.literal("profile"), stack: BuiltStack, model: ModelRef, workload: Workload });

/** Runs one command in a copy of the tree, in the sandbox, with the compiler and without the weights: what an implementing agent tries out by itself. */
export const ExecSpec = z.strictObject({
  kind: z.literal("exec"),
  treeDigest: TreeHash,
  tree: ArtifactRef,
  provenance: Provenance,
  argv: z.array(z.string().min(1).max(4_000)).min(1).max(64),
  limitMs: z.int().min(100).max(120_000),
});

export const JobSpec = z.discriminatedUnion("kind", [BuildSpec, CheckSpec, BenchSpec, BaselineSpec, ProfileSpec, ExecSpec]);
export type JobSpec = z.infer<typeof JobSpec>;
export type BuildSpec = z.infer<typeof BuildSpec>;
export type CheckSpec = z.infer<typeof CheckSpec>;
export type BenchSpec = z.infer<typeof BenchSpec>;
export type BaselineSpec = z.infer<typeof BaselineSpec>;
export type ProfileSpec = z.infer<typeof ProfileSpec>;
export type ExecSpec = z.infer<typeof ExecSpec>;
export type JobKind = JobSpec["kind"];

/**
 * One unit of remote work. A fact of its campaign first (job.requested), then it waits in the coordinator's scheduler, and travels inside an Assignment.
 * The agent works until `deadlineMs` after it began at the most.
 */
export const Job = message("job", {
  id: Id,
  campaign: Id,
  experiment: z.string(),
  attempt: z.int().min(1),
  pool: Id,
  /** Devices of one agent that it takes, all or none. Absent: 1. */
  deviceCount: z.int().min(1).max(MAX_DEVICES).optional(),
  issuedAt: Instant,
  deadlineMs: z.int().min(1),
  spec: JobSpec,
});
export type Job = z.infer<typeof Job>;

/** I8: only a failure attributed to the candidate counts against an idea. `code` is stable, `message` is for people. */
export const Failure = z.strictObject({
  attribution: z.enum(["candidate", "device", "harness", "network"]),
  code: Id,
  message: z.string().max(4000),
  /** Of a job with several devices: the one that the evidence names. Absent: none is named, or there was but one. */
  device: Id.optional(),
  /** Last lines of the untrusted log, control characters removed. */
  logTail: z.string().max(8000),
});
export type Failure = z.infer<typeof Failure>;

export const Outcome = z.discriminatedUnion("status", [
  z.strictObject({
    status: z.literal("built"),
    buildDigest: Digest,
    cached: z.boolean(),
    seconds: z.number(),
    bytes: z.int(),
    output: BuildOutput.optional(),
  }),
  z.strictObject({ status: z.literal("checked"), report: CheckReport, seconds: z.number(), warmupS: z.number().optional() }),
  z.strictObject({
    status: z.literal("measured"),
    comparison: Comparison,
    challenger: Measurement,
    champion: Measurement,
    seconds: z.number(),
    /** Of `seconds`: until the arms answered that name a warm-up in their stack.json. */
    warmupS: z.number().optional(),
  }),
  z.strictObject({
    status: z.literal("baseline-ready"),
    engine: z.string(),
    version: z.string(),
    /** Rate of each setting on a short load, in the metric's unit; the first is "as shipped". */
    sweep: z.array(z.strictObject({ setting: z.string(), value: z.number() })),
    strongest: z.string(),
    /** The recipe's own accuracy row by the same judge, where it can be judged. */
    accuracy: CheckReport.nullable(),
    seconds: z.number(),
  }),
  z.strictObject({ status: z.literal("profiled"), profile: Profile, roofline: Roofline.nullable(), seconds: z.number() }),
  z.strictObject({
    status: z.literal("ran"),
    /** Null: it was stopped, by a signal of its own or at its limit. */
    exitCode: z.int().nullable(),
    timedOut: z.boolean(),
    /** Last bytes of what it wrote, control characters removed. */
    stdout: z.string().max(16_000),
    stderr: z.string().max(16_000),
    seconds: z.number(),
  }),
  z.strictObject({ status: z.literal("failed"), failure: Failure }),
]);
export type Outcome = z.infer<typeof Outcome>;

/**
 * Subject `vs.result.<agentId>.<campaign>`, stream VS_RESULTS, agent → coordinator, at least once; a copy is known by its signature.
 * Spooled on the agent's disk until JetStream has acknowledged it. sig: the agent's NKey over canonicalJson(everything but sig), base64.
 */
export const JobResult = message("result", {
  jobId: Id,
  campaign: Id,
  attempt: z.int().min(1),
  agentId: Id,
  deviceId: Id,
  /** All devices that it had, `deviceId` the first. Absent: that one alone. */
  devices: z.array(Id).min(1).max(MAX_DEVICES).optional(),
  leaseToken: z.int().min(1),
  /** What the agent had when it worked, in every result: builds and checks have no certificate. */
  sandbox: SandboxKind,
  startedAt: Instant,
  endedAt: Instant,
  outcome: Outcome,
  log: ArtifactRef.nullable(),
  sig: z.string(),
});
export type JobResult = z.infer<typeof JobResult>;

/** All devices that the job had. */
export const devicesOf = ({ deviceId, devices }: Pick<JobResult, "deviceId" | "devices">): readonly string[] => devices ?? [deviceId];

/** The device that a failure is laid to where it is a device's at all: the only one, or the one of several that the evidence names; null: it names none. */
export function blamedDevice({ deviceId, devices, outcome }: Pick<JobResult, "deviceId" | "devices" | "outcome">): string | null {
  if (devices === undefined || devices.length === 1) return deviceId;
  const named = outcome.status === "failed" ? outcome.failure.device : undefined;
  return named !== undefined && devices.includes(named) ? named : null;
}

/** Subject `vs.progress.<agentId>.<jobId>`, core NATS, lossy by intent. Also keeps the lease alive. */
export const Progress = message("progress", {
  jobId: Id,
  campaign: Id,
  attempt: z.int().min(1),
  agentId: Id,
  leaseToken: z.int().min(1),
  phase: z.string().max(200),
  at: Instant,
});
export type Progress = z.infer<typeof Progress>;
