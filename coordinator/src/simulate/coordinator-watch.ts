import type { CrowdMember } from "./crowd.ts";
import type { Coming, Granted } from "./recorded-run.ts";

/** What the coordinator reports, as far as the account needs it. */
export class CoordinatorWatch {
  readonly leases: Granted[] = [];
  readonly comings: Coming[] = [];
  readonly tokens = new Map<string, number>();
  suspected = 0;
  readonly #members: ReadonlyMap<string, CrowdMember>;
  readonly #live = new Map<string, Granted>();
  readonly #here = new Set<string>();
  readonly #joined = Promise.withResolvers<undefined>();
  readonly #pauses = new Map<string, () => void>();

  constructor(members: readonly CrowdMember[]) {
    this.#members = new Map(members.map((m) => [m.agentId, m]));
  }

  get allJoined(): Promise<undefined> {
    return this.#joined.promise;
  }

  onPause(campaign: string, happen: () => void): void {
    this.#pauses.set(campaign, happen);
  }

  heard(event: string, facts: Record<string, unknown>): void {
    switch (event) {
      case "agent.joined":
      case "agent.left":
      case "agent.withdrawn":
        this.#came(String(facts["agentId"]), event === "agent.joined");
        return;
      case "lease.granted": {
        const { jobId, attempt, agentId, deviceId, token } = facts as unknown as Granted;
        const granted = { at: Date.now(), endedAt: Infinity, jobId, attempt, agentId, deviceId, token };
        this.tokens.set(`${jobId}.${attempt}`, token);
        this.#live.set(`${jobId}.${token}`, granted);
        return;
      }
      case "result.recorded":
        if (facts["accepted"] === true) this.#over(String(facts["jobId"]), Number(facts["token"]));
        return;
      case "lease.lost":
      case "lease.returned":
        this.#over(String(facts["jobId"]), Number(facts["token"]));
        return;
      case "device.health":
        if (facts["health"] !== "good") this.suspected++;
        return;
      case "campaign.paused":
        // The fact is in the log, and the mailbox still busy with it.
        setImmediate(this.#pauses.get(String(facts["campaign"])) ?? (() => undefined));
    }
  }

  #came(agentId: string, here: boolean): void {
    const member = this.#members.get(agentId);
    if (!member || this.#here.has(agentId) === here) return;
    if (here) this.#here.add(agentId);
    else this.#here.delete(agentId);
    this.comings.push({ at: Date.now(), kind: member.pool, devices: here ? member.devices.length : -member.devices.length });
    if (this.#here.size === this.#members.size) this.#joined.resolve(undefined);
  }

  #over(jobId: string, token: number): void {
    const lease = this.#live.get(`${jobId}.${token}`);
    if (!lease) return;
    this.#live.delete(`${jobId}.${token}`);
    this.leases.push({ ...lease, endedAt: Date.now() });
  }
}
