import { existsSync, readFileSync } from "node:fs";
import {
  blamedDevice,
  devicePool,
  devicesOf,
  Id,
  Instant,
  type AgentInfo,
  type JobResult,
  type Outcome,
  type Verdict,
} from "@vibeserve/shared";
import { z } from "zod";
import { writePrivate } from "../broker/principals.ts";
import type { JobEntry } from "../campaign/ledger.ts";
import { verdictOf } from "./attribution.ts";
import { judgeCanary } from "./canary.ts";
import { stepHealth, unknownDevice, type DeviceRecord, type Health, type HealthEvent } from "./health.machine.ts";

/**
 * Every device's record. A file beside the holds, not a fold of the logs: what counts against a device comes from many campaigns, and a person's word that it is good again
 * from none; logs that are gone must not make a sick device good. Written when a record changes, which is rare.
 */
export interface HealthDeps {
  /** Null: not kept. */
  file: string | null;
  agents: () => readonly AgentInfo[];
  /** A device's health has changed. */
  changed: (agentId: string) => void;
  /** It was good: what it answered since its last good canary is in doubt. */
  suspected?: (deviceId: string, since: number | null, why: string) => void;
  log: (event: string, facts: Record<string, unknown>) => void;
  now: () => number;
}

const Stored = z.strictObject({
  v: z.literal(1),
  devices: z.record(
    Id,
    z.strictObject({
      health: z.enum(["good", "suspect", "quarantined"]),
      /** 0: nothing has been said of its health yet, though something may count against it. */
      ...{ reason: z.string(), since: z.int().min(0), row: z.array(z.string()) },
      ...{ contradicted: z.array(z.string()), wellSince: z.int(), canaryAt: Instant.nullable() },
      history: z.strictObject({ key: z.string(), rates: z.array(z.number()) }).nullable(),
    }),
  ),
});

export class FleetHealth {
  readonly #deps: HealthDeps;
  readonly #records: Map<string, DeviceRecord>;

  /** Throws where the file can't be read: a quarantine must not be lifted by mistake. */
  constructor(deps: HealthDeps) {
    this.#deps = deps;
    const stored = deps.file !== null && existsSync(deps.file) ? Stored.parse(JSON.parse(readFileSync(deps.file, "utf8"))).devices : {};
    this.#records = new Map(Object.entries(stored));
  }

  of(deviceId: string): DeviceRecord {
    return this.#records.get(deviceId) ?? unknownDevice;
  }

  /** Null: nothing is known against it. */
  known(deviceId: string): Pick<DeviceRecord, "health" | "reason" | "since"> | null {
    const { health, reason, since } = this.of(deviceId);
    return health === "good" && reason === "" ? null : { health, reason, since };
  }

  /** What an accepted result is to count as, by this device's record and the devices beside it; null: as its agent said. */
  judge(result: JobResult, { doubted }: Pick<JobEntry, "doubted">): Verdict | null {
    const devices = devicesOf(result);
    const health = devices.map((id) => this.of(id).health).find((h) => h !== "good") ?? "good";
    return verdictOf({ result, health, others: () => this.#others(devices), doubted });
  }

  /** An accepted result is in its campaign's log. doubted: the device whose failure of the same job was held back before. */
  answered(result: JobResult, verdict: Verdict | null, doubted: string | null): void {
    const { outcome, deviceId, jobId } = result;
    const devices = devicesOf(result);
    if (verdict?.code === "impossible-numbers")
      for (const id of devices) this.#note(id, { type: "accused", why: verdict.why, alone: false });
    else if (verdict?.secondDevice) return;
    else if (outcome.status !== "failed") for (const id of devices) this.#note(id, { type: "worked" });
    else if (outcome.failure.attribution === "device") {
      const { code, message: why } = outcome.failure;
      // Of several devices nothing is held against those that nobody has named: each has canaries of its own.
      const blamed = blamedDevice(result);
      if (blamed !== null) this.#note(blamed, { type: "failed", jobId, code, why, alone: this.#others([blamed]) === 0 });
    }
    if (devices.length > 1) return;
    const well = outcome.status !== "failed" && (outcome.status !== "checked" || outcome.report.ok);
    if (doubted !== null && doubted !== deviceId && well)
      this.#note(doubted, {
        ...{ type: "contradicted", jobId, why: `twice a job failed on it and went well elsewhere, the last, ${jobId}, on ${deviceId}` },
        alone: this.#others([doubted]) === 0,
      });
  }

  /** This agent sends results that change nothing, more than a log keeps: what it measures is not to be believed either. Its devices that were good are suspect. */
  floods(agentId: string, campaign: string, dropped: number): void {
    const why = `agent ${agentId} sent campaign ${campaign} ${dropped} results too many that change nothing`;
    for (const { id } of this.#deps.agents().find((a) => a.agentId === agentId)?.devices ?? [])
      if (this.of(id).health === "good") this.#note(id, { type: "accused", why, alone: false });
  }

  /** What a canary on it came to. */
  canary(deviceId: string, key: string, outcome: Outcome): void {
    const { history } = this.of(deviceId);
    const verdict = judgeCanary(outcome, history?.key === key ? history.rates : []);
    this.#note(deviceId, verdict.passed ? { type: "passed", key, ...verdict } : { type: "accused", why: verdict.why, alone: false });
  }

  /** Every device of a ready agent, and how many good ones there are beside it. */
  devices(): { deviceId: string; pool: string; simulated: boolean; peers: number }[] {
    return this.#deps
      .agents()
      .filter((a) => a.state === "ready")
      .flatMap((a) =>
        a.devices.map((d) => ({ deviceId: d.id, pool: devicePool(a, d), simulated: d.simulated, peers: this.#others([d.id]) })),
      );
  }

  /** A person says that the device, or every device of the agent, is good. False: neither is known to be anything else. */
  lift(id: string, why: string): boolean {
    const own = this.#deps
      .agents()
      .find((a) => a.agentId === id)
      ?.devices.map((d) => d.id) ?? [id];
    const bad = own.filter((deviceId) => this.of(deviceId).health !== "good");
    for (const deviceId of bad) this.#note(deviceId, { type: "lifted", why });
    return bad.length > 0;
  }

  #note(deviceId: string, event: HealthEvent): void {
    const before = this.of(deviceId);
    const after = stepHealth(before, event, this.#deps.now());
    if (after === before) return;
    this.#records.set(deviceId, after);
    if (this.#deps.file !== null)
      writePrivate(this.#deps.file, JSON.stringify({ v: 1, devices: Object.fromEntries(this.#records) }, null, 2));
    if (after.health === before.health) return;
    this.#deps.log("device.health", { deviceId, health: after.health, why: after.reason });
    const agent = this.#deps.agents().find((a) => a.devices.some((d) => d.id === deviceId));
    if (agent) this.#deps.changed(agent.agentId);
    if (before.health === "good") this.#deps.suspected?.(deviceId, before.canaryAt, after.reason);
  }

  /** Good devices of ready agents in the same pool, these left out, where an agent has as many of them as these. A builder has no record and no peers. */
  #others(devices: readonly string[]): number {
    const agents = this.#deps.agents();
    const [deviceId] = devices;
    const own = agents.find((a) => a.devices.some((d) => d.id === deviceId));
    const device = own?.devices.find((d) => d.id === deviceId);
    if (!own || !device) return 0;
    const alike = goodDevices(agents, devicePool(own, device), device.simulated, (id) => this.of(id).health, devices);
    return alike.filter((ids) => ids.length >= devices.length).flat().length;
  }
}

/** Of each ready agent its good devices in a pool, simulated or real ones, but for some. */
export const goodDevices = (
  agents: readonly AgentInfo[],
  pool: string,
  simulated: boolean,
  health: (deviceId: string) => Health,
  but: readonly string[],
): string[][] =>
  agents
    .filter((a) => a.state === "ready")
    .map((a) => a.devices.filter((d) => d.simulated === simulated && devicePool(a, d) === pool).map((d) => d.id))
    .map((ids) => ids.filter((id) => !but.includes(id) && health(id) === "good"));
