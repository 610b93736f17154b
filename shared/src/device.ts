import { z } from "zod";
import { BuilderInfo } from "./build-target.ts";
import { Digest, Id, Instant } from "./ids.ts";
import { message } from "./message.ts";

/** What a measurement was made on. `labels` use the fleet's vocabulary (vibeserve.dev/cpu.model, vibeserve.dev/cpu.isa.avx2 = "true", …). */
export const Device = z.strictObject({
  id: Id,
  kind: z.enum(["cpu", "nvidia", "amd", "apple"]),
  name: z.string(),
  /** Best instruction set that the stacks know, from CPUID and arch_prctl, never from a model name. */
  isa: z.string(),
  isaBits: z.array(z.string()),
  cores: z.int().min(1),
  /** The processors a candidate is given, as a list for --cpus: "0,1". */
  cpus: z.string(),
  memBytes: z.int().min(0),
  /**
   * Measured by the agent on all of `cpus` at once: GB/s read from memory, and 1e9 operations a second (multiply and add are two) in the fastest `type` that it
   * has, such as "int8-avx512-vnni". Absent: no compiler, or it could not be measured.
   */
  peaks: z.strictObject({ memoryGBs: z.number().positive(), gops: z.number().positive(), type: z.string() }).optional(),
  labels: z.record(z.string(), z.string()),
  simulated: z.boolean(),
});
export type Device = z.infer<typeof Device>;

/** Of one machine, that one job may take together. */
export const MAX_DEVICES = 16;

/** A device that carries this label is bound only to targets that ask for it by the same value; what they leave behind is no default of any verb. */
export const RESERVED_LABEL = "vibeserve.dev/reserved";

/** Its work takes the machine's processors, as every build does. An accelerator is a device beside them. */
export const onProcessors = (device: Device): boolean => device.kind === "cpu";
/** A part of a card (MIG). */
export const isSlice = ({ labels }: Device): boolean => labels["nvidia.com/gpu.slices.gi"] !== undefined;

export const Tool = z.strictObject({ name: z.string(), version: z.string(), digest: z.string().nullable() });
export type Tool = z.infer<typeof Tool>;

/**
 * Where candidates run: "bubblewrap", on macOS "seatbelt", or "none" where a system gives neither: then only code that ships with the product runs, and every record
 * says so.
 */
export const SandboxKind = z.enum(["bubblewrap", "seatbelt", "none"]);
export type SandboxKind = z.infer<typeof SandboxKind>;

/** Raised when a release can't work with the one before it any more. Within one number messages only gain optional members and kinds. */
export const PROTOCOL = 1;

/** Registry entry, KV bucket `vs-agents`, key `<agentId>.info`; written by the agent when it connects and when it changes. Beats say that it lives. */
export const AgentInfo = message("agent", {
  agentId: Id,
  publicKey: z.string(),
  version: z.string(),
  /** Absent: 1. An agent of another protocol than its coordinator's gets no work. */
  protocol: z.int().min(1).optional(),
  pools: z.array(Id),
  devices: z.array(Device),
  tools: z.array(Tool),
  /** Baselines' engines that were installed already when it started, by the name in their recipe. Absent: it does not say. */
  engines: z.array(z.string()).optional(),
  sandbox: SandboxKind,
  state: z.enum(["ready", "draining"]),
  pid: z.int(),
  host: z.string(),
  /** sha256 of what the operating system knows the machine by: agents with the same one share its processors, and one measurement at a time. Absent: it does not say. */
  machine: Digest.optional(),
  /** What its builder makes for other machines, too. Absent: it builds for its own devices only. */
  builder: BuilderInfo.optional(),
  startedAt: Instant,
});
export type AgentInfo = z.infer<typeof AgentInfo>;

/**
 * The pool that a device is in: what its label says where its agent is in that pool, else its agent's first. So an agent with devices of several kinds has each in
 * its own; and where an operator has named the pool, or an older release put all devices into one, that holds.
 */
export const devicePool = ({ pools }: Pick<AgentInfo, "pools">, { labels }: Pick<Device, "labels">): string => {
  const own = labels["vibeserve.dev/pool"];
  return own !== undefined && pools.includes(own) ? own : (pools[0] ?? "");
};

/**
 * What is the same whoever registers this very device, from whatever data folder, user or container: the UUID that its vendor gave it, else its place in its
 * machine. Null: nothing tells it from others. Processors are known by their machine.
 */
export function physicalId({ kind, labels }: Device, machine: string | undefined): string | null {
  if (kind === "cpu") return null;
  const uuid = labels["vibeserve.dev/gpu.uuid"] ?? "";
  if (/[0-9a-f]{8}/i.test(uuid)) return `${kind} ${uuid.toLowerCase()}`;
  const place = labels["vibeserve.dev/gpu.bus-id"] ?? (kind === "apple" ? "its only GPU" : undefined);
  return machine === undefined || place === undefined ? null : `${kind} ${machine} ${place.toLowerCase()}`;
}

/** The right to work on one attempt of a job with one device, as an assignment gave it. `token` rises with each grant and never changes while the lease lives. */
export const Lease = message("lease", {
  deviceId: Id,
  agentId: Id,
  jobId: Id,
  attempt: z.int().min(1),
  token: z.int().min(1),
  grantedAt: Instant,
  /** The agent must report within this; else the lease may be granted to another. */
  ttlMs: z.int().min(1),
  deadline: Instant,
});
export type Lease = z.infer<typeof Lease>;
