import { z } from "zod";
import { Id, Instant } from "./ids.ts";
import { message } from "./message.ts";

/** Which devices: all that match every member given; none given: the whole fleet. */
export const Where = z.strictObject({ pool: Id.optional(), agentId: Id.optional(), deviceId: Id.optional() });
export type Where = z.infer<typeof Where>;

/** Is it one of them? */
export const covers = ({ pool, agentId, deviceId }: Where, device: { pool: string; agentId: string; deviceId: string }): boolean =>
  (pool ?? device.pool) === device.pool &&
  (agentId ?? device.agentId) === device.agentId &&
  (deviceId ?? device.deviceId) === device.deviceId;

/** Equal for the very same devices. */
export const keyOfWhere = ({ pool, agentId, deviceId }: Where): string => JSON.stringify([pool, agentId, deviceId]);

const TimeOfDay = z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, "must be HH:MM");

/** Nothing new starts on these devices while it lasts; what runs goes on to its end, so nothing that was paid for is lost. */
export const Hold = z.strictObject({
  /** yield: to production. drain: for maintenance. quiet: hours of every day. */
  purpose: z.enum(["yield", "drain", "quiet"]),
  where: Where,
  /** Null: until it is lifted. */
  until: Instant.nullable(),
  /** Every day between these times, by the coordinator's clock and time zone; over midnight where `from` is later than `to`. Null: all the time. */
  daily: z.strictObject({ from: TimeOfDay, to: TimeOfDay }).nullable(),
  reason: z.string().max(300),
  at: Instant,
});
export type Hold = z.infer<typeof Hold>;

/** Request of verb `holds`: adds one, or takes away all on the very same devices, or neither. Reply: Holds. Errors: bad-input, not-found. */
export const HoldsRequest = message("holds.request", {
  add: Hold.omit({ at: true }).nullable(),
  lift: Where.nullable(),
  /** What is added may name a pool, agent or device that is not there yet. Absent: not-found says what there is. */
  ahead: z.boolean().optional(),
});

export const Holds = message("holds", {
  holds: z.array(Hold.extend({ active: z.boolean() })),
  /** What still runs on devices that an active hold is about; at most 500. */
  running: z.array(z.strictObject({ jobId: Id, deviceId: Id })).max(500),
  /** Devices and builders that an active hold is about, as far as their agents are heard of; at most 500, `more` are left out. Absent: of an older release. */
  devices: z.array(Id).max(500).optional(),
  more: z.int().min(0).optional(),
});
export type Holds = z.infer<typeof Holds>;

/** Request of verb `explain`: job null: every idle device. Reply: Explained. Error: none; an unknown job is an answer. */
export const ExplainRequest = message("explain.request", { job: Id.nullable() });

/** Why a job waits and when it may start, or what idle devices wait for. */
export const Explained = message("explained", {
  job: z
    .strictObject({
      id: Id,
      state: z.enum(["waiting", "running", "unknown"]),
      /** 1: the next of its pool. */
      position: z.int().nullable(),
      /** Until it starts, or ends when it runs, by how long such jobs took lately, ms. */
      etaMs: z.number().nullable(),
      reason: z.string(),
      /** Of a job that is unknown here and that a campaign's log knows: when its last attempt ended; null: it had none that did. */
      endedAt: Instant.nullable().optional(),
    })
    .nullable(),
  /** At most 500, by id; `more` are left out. */
  devices: z.array(z.strictObject({ id: Id, doing: z.string() })).max(500),
  more: z.int().min(0),
});
export type Explained = z.infer<typeof Explained>;
