import { z } from "zod";
import { Device, SandboxKind, Tool } from "./device.ts";
import { ArtifactRef, Digest, Id, TreeHash } from "./ids.ts";
import { Metric } from "./metric.ts";

/** What a device did while runs were timed, as its own sensors tell: the worst over all samples. What they don't tell is absent. */
export const DeviceConditions = z.strictObject({
  samples: z.int().min(1),
  clockMHz: z.strictObject({ min: z.number(), max: z.number() }).optional(),
  temperatureC: z.number().optional(),
  powerW: z.number().optional(),
  /** Reasons for which it ran slower than it could; only those that are its own (a power limit) are left in a run that counts. */
  throttle: z.array(z.string()),
  /** Processes on it that are neither arm's. Absent: it can't be told. */
  foreignProcesses: z.int().min(0).optional(),
  memoryMiB: z.number().optional(),
});
export type DeviceConditions = z.infer<typeof DeviceConditions>;

/**
 * Proof that the device was quiet and the load generator kept up, over all counted runs. Later work only adds members; a reader keeps those that it does
 * not know, since signatures and the log's hashes cover them.
 */
export const Certificate = z.looseObject({
  quiet: z.boolean(),
  /** CPU time stolen by the hypervisor, percent of the device's capacity, worst run. */
  stealPct: z.number(),
  /** CPU time of processes that are neither the arm, the load generator nor idle, percent of the device's capacity, worst run. */
  foreignCpuPct: z.number(),
  /** What clocks that tick can't tell of these two, in the same percent, worst run: a value beyond a limit by less than this counts. Absent: an older agent's. */
  resolutionPct: z.number().min(0).optional(),
  /** Load generator: 99th percentile of sent − scheduled, and of its event loop's delay, in ms; worst run. */
  scheduleSlipMs: z.number(),
  loopDelayMs: z.number(),
  /** Runs refused and repeated, with the reason of each. */
  refused: z.array(z.string()),
  sandbox: SandboxKind,
  simulated: z.boolean(),
  /** Over all counted runs. Absent: the device has no sensors that the agent can read. */
  device: DeviceConditions.optional(),
  /** Where there were several: each of them, in the order in which the stack saw them; `device` is the worst of all. */
  devices: z.array(z.strictObject({ id: Id, conditions: DeviceConditions.nullable() })).optional(),
});
export type Certificate = z.infer<typeof Certificate>;

export const ArmRole = z.enum(["challenger", "champion", "seed", "baseline"]);

/** Made by a gpu-agent's evaluator and by nothing else (I1); the agent's NKey signs canonicalJson(everything but sig). */
export const Measurement = z.strictObject({
  metric: Metric,
  /** Median over runs of the metric, in metric.unit. */
  value: z.number(),
  samplesRef: ArtifactRef,
  seeds: z.array(z.string()),
  workloadDigest: Digest,
  role: ArmRole,
  treeDigest: TreeHash.nullable(),
  buildDigest: Digest.nullable(),
  /** For a baseline: engine, version and setting; null for a stack of ours. */
  engine: z.strictObject({ name: z.string(), version: z.string(), setting: z.string() }).nullable(),
  device: Device,
  leaseToken: z.int().min(1),
  toolVersions: z.array(Tool),
  certificate: Certificate,
  sig: z.string(),
});
export type Measurement = z.infer<typeof Measurement>;

/** Direct, interleaved pairs on one lease. Ratios are improvement(metric, challenger, champion): > 1 means that the first arm is better. */
export const Comparison = z.strictObject({
  point: z.number(),
  lo: z.number(),
  hi: z.number(),
  confidence: z.number(),
  pairs: z.int().min(1),
  ratios: z.array(z.number()),
  stop: z.enum(["better", "worse", "noise", "max-pairs"]),
});
export type Comparison = z.infer<typeof Comparison>;

/** What of a comparison is told and kept. */
export const Ratio = z.strictObject({ point: z.number(), lo: z.number(), hi: z.number(), pairs: z.int() });
export type Ratio = z.infer<typeof Ratio>;
export const ratioOf = ({ point, lo, hi, pairs }: Comparison): Ratio => ({ point, lo, hi, pairs });

export const Gate = z.strictObject({ name: z.string(), value: z.number(), unit: z.string(), limit: z.string(), ok: z.boolean() });
export type Gate = z.infer<typeof Gate>;

/** What a check job found on the served path. */
export const CheckReport = z.strictObject({
  ok: z.boolean(),
  level: z.enum(["screen", "crown", "public"]),
  gates: z.array(Gate).max(64),
  /** Teacher-forced positions that were compared; never used before in this campaign. */
  positions: z.int().min(0),
  /** Served tokens judged under the margin rule. */
  servedTokens: z.int().min(0),
  firstFailure: z.strictObject({ gate: z.string(), where: z.string(), candidate: z.string(), reference: z.string() }).nullable(),
});
export type CheckReport = z.infer<typeof CheckReport>;
