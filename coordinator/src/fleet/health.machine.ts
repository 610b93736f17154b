import { KEPT, type CanaryHistory } from "./canary.ts";

/**
 * Whether a device's numbers are believed, apart from whether it works (its state). Pure.
 *   H1. Device failures of two different jobs in a row make it suspect, of three quarantined; a job that it ended well begins the row anew.
 *   H2. One accusation (its own sensors, a canary that drifts or fails, numbers that can't be) makes it suspect, the next quarantined. Two jobs that failed on it and went
 *       well on another device are one accusation, unless it ended ten jobs well since the first: a racy candidate must not put out device after device.
 *   H3. Work never makes it good again: a canary lifts suspicion, only a person a quarantine.
 *   H4. The last good device of its pool is not taken out for failures or by its sensors: its campaigns pause with the reason instead. Numbers that can't be have no such pardon.
 */
export type Health = "good" | "suspect" | "quarantined";

export interface DeviceRecord {
  health: Health;
  /** Why, since when; of a good device: why it is good again, or what is known against it. */
  reason: string;
  since: number;
  /** Jobs that it failed in a row, each once. */
  row: readonly string[];
  /** Jobs that failed on it and went well elsewhere, and how many it ended well since. */
  contradicted: readonly string[];
  wellSince: number;
  /** When its last canary passed; null: none has. */
  canaryAt: number | null;
  history: CanaryHistory | null;
}

export type HealthEvent =
  /** It ended a job with an answer. */
  | { type: "worked" }
  | { type: "failed"; jobId: string; code: string; why: string; alone: boolean }
  | { type: "accused"; why: string; alone: boolean }
  | { type: "contradicted"; jobId: string; why: string; alone: boolean }
  | { type: "passed"; why: string; key: string; rate: number }
  | { type: "lifted"; why: string };

export const SUSPECT_AFTER = 2;
export const QUARANTINED_AFTER = 3;
const ABSOLVED_AFTER = 10;

/** What a device lacks, and what others do on it, says nothing of its numbers. */
const LACKS: readonly string[] = [
  ...["no-profiler", "no-python", "no-compiler", "no-sandbox", "no-device-files", "masked"],
  ...["weights-missing", "weights-damaged", "machine-busy", "device-noisy"],
];
/** Of these one is enough. */
const ACCUSES: readonly string[] = ["device-unhealthy", "device-lost"];

export const unknownDevice: DeviceRecord = {
  ...{ health: "good", reason: "", since: 0, row: [] },
  ...{ contradicted: [], wellSince: 0, canaryAt: null, history: null },
};

export function stepHealth(record: DeviceRecord, event: HealthEvent, at: number): DeviceRecord {
  const became = (health: Health, reason: string, row = record.row): DeviceRecord => ({
    ...record,
    health,
    reason: reason.slice(0, 400),
    since: health === record.health && record.since > 0 ? record.since : at,
    row,
  });
  switch (event.type) {
    case "worked": {
      if (record.row.length === 0 && record.contradicted.length === 0) return record;
      const wellSince = record.wellSince + 1;
      return { ...record, row: [], wellSince, contradicted: wellSince >= ABSOLVED_AFTER ? [] : record.contradicted };
    }
    case "contradicted": {
      const contradicted = [...new Set([...record.contradicted, event.jobId])];
      if (contradicted.length < 2) return { ...record, contradicted, wellSince: 0 };
      return stepHealth({ ...record, contradicted: [], wellSince: 0 }, { type: "accused", why: event.why, alone: event.alone }, at);
    }
    case "failed": {
      if (LACKS.includes(event.code)) return record;
      if (ACCUSES.includes(event.code)) return stepHealth(record, { type: "accused", why: event.why, alone: event.alone }, at);
      const row = record.row.includes(event.jobId) ? record.row : [...record.row, event.jobId];
      const words = `${row.length} jobs in a row failed on it, the last with ${event.code}: ${event.why}`;
      if (event.alone && record.health === "good") return became("good", row.length < SUSPECT_AFTER ? record.reason : words, row);
      if (row.length >= QUARANTINED_AFTER) return became("quarantined", words, row);
      return row.length >= SUSPECT_AFTER && record.health === "good" ? became("suspect", words, row) : { ...record, row };
    }
    case "accused":
      if (event.alone && record.health === "good") return became("good", event.why);
      return record.health === "good" ? became("suspect", event.why) : became("quarantined", event.why);
    case "passed": {
      const rates = record.history?.key === event.key ? record.history.rates : [];
      const known = { canaryAt: at, history: { key: event.key, rates: [...rates, event.rate].slice(-KEPT) } };
      return { ...(record.health === "suspect" ? became("good", event.why, []) : { ...record, row: [] }), ...known };
    }
    case "lifted":
      return became("good", event.why, []);
  }
}
