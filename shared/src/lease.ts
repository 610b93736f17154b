import { z } from "zod";
import { Id } from "./ids.ts";
import { Lease } from "./device.ts";

/** Request on `vs.lease.<agentId>` (core request/reply, 5 s): may I start this attempt on this device? */
export const LeaseRequest = z.strictObject({
  v: z.literal(1),
  kind: z.literal("lease.request"),
  agentId: Id,
  deviceId: Id,
  jobId: Id,
  attempt: z.int().min(1),
});
export type LeaseRequest = z.infer<typeof LeaseRequest>;

/** refused: `drop` says that the job is over (settled, cancelled, newer attempt), so the agent acknowledges and forgets it; else it retries later. */
export const LeaseReply = z.discriminatedUnion("kind", [
  z.strictObject({ v: z.literal(1), kind: z.literal("lease.granted"), lease: Lease }),
  z.strictObject({ v: z.literal(1), kind: z.literal("lease.refused"), reason: z.string(), drop: z.boolean() }),
]);
export type LeaseReply = z.infer<typeof LeaseReply>;

/**
 * Message on `vs.agent.<agentId>.revoke` (core NATS, no reply, lossy): the attempt is over (expired, cancelled), stop working on it. An agent that
 * misses it loses nothing but time: its result will be evidence only.
 */
export const LeaseRevoked = z.strictObject({
  v: z.literal(1),
  kind: z.literal("lease.revoked"),
  agentId: Id,
  deviceId: Id,
  jobId: Id,
  attempt: z.int().min(1),
  token: z.int().min(1),
  reason: z.string().max(500),
});
export type LeaseRevoked = z.infer<typeof LeaseRevoked>;
