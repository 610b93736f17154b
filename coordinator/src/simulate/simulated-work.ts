import { createRng, type ArtifactRef, type BuiltStack, type Job, type JobSpec, type Lease, type Outcome } from "@vibeserve/shared";
import { ArtifactStore } from "../artifact/artifact-store.ts";
import { delay } from "../process/backoff.ts";
import { outcomeOf } from "./device-model.ts";
import { campaignsOf, type PlannedCampaign } from "./fleet-campaigns.ts";
import type { FleetFile, FleetKind, Misdeeds } from "./fleet-file.ts";
import type { SimulatedAgent } from "./simulated-agent.ts";
import { rateWith, truthsOf } from "./simulated-campaign.ts";

/** What simulated agents of one fleet know of it. speed: simulated time passes so many times as fast. */
export interface FleetModel {
  fleet: FleetFile;
  seed: string;
  speed: number;
}

/** An agent reports every 2 s, as a real one does. */
const REPORT_MS = 2_000;
/** A frozen agent stays so for this many times its lease's ttl: what it then answers is stale. */
const FROZEN_TTLS = 1.5;

/** The i-th campaign of a fleet begins with this over the protocol; what else is in its id hangs on the clock. */
export const targetName = (i: number): string => `c${i}`;

/** The model's side of simulated agents: trees are fetched, times waited for, answers drawn as in virtual time. One for all agents of a process. */
export class SimulatedWork {
  readonly #model: FleetModel;
  readonly #campaigns: readonly PlannedCampaign[];
  readonly #kinds: ReadonlyMap<string, FleetKind>;
  readonly #bindings = new Map<string, Promise<string[]>>();
  readonly #truths = new Map<string, ReadonlyMap<string, number>>();

  constructor(model: FleetModel) {
    this.#model = model;
    this.#campaigns = campaignsOf(model.fleet);
    this.#kinds = new Map(model.fleet.kinds.map((kind) => [kind.name, kind]));
  }

  async do(agent: SimulatedAgent, job: Job, lease: Lease): Promise<Outcome | "silent"> {
    const { fleet, seed, speed } = this.#model;
    const kind = this.#kinds.get(job.pool);
    const device = agent.info.devices.find((d) => d.id === lease.deviceId) ?? agent.info.devices[0];
    if (!kind?.jobs || !device) throw new Error(`job ${job.id}: agent ${agent.info.agentId} has no such device`);
    const reports = setInterval(() => agent.report(job, lease), REPORT_MS);
    try {
      const planned = this.#campaigns[Number(/^c(\d+)-/.exec(job.campaign)?.[1] ?? NaN)];
      const truths = planned ? this.#truthsOf(planned) : new Map<string, number>();
      const rates = new Map<string, number>();
      for (const tree of treesOf(job.spec)) rates.set(tree.digest, rateWith(await this.#bindingsOf(agent, tree), truths));
      const faults = kind.faults ?? fleet.faults;
      const rateOf = ({ tree }: BuiltStack) => rates.get(tree.digest) ?? 1;
      const sign = (value: unknown) => agent.sign(value);
      const on = { device, jobs: kind.jobs, noise: kind.noise, faults, rateOf, leaseToken: lease.token, sign };
      const name = planned ? `${planned.id}${job.id.slice(job.campaign.length)}` : job.id;
      const { ms, outcome } = outcomeOf(job, on, createRng(`${seed} job ${name} ${job.attempt}`));
      await delay(ms / speed);
      return await misbehave(agent, job, lease, outcome, misdeedOf(faults, `${seed} misdeed ${name} ${job.attempt}`));
    } finally {
      clearInterval(reports);
    }
  }

  #truthsOf({ id, on }: PlannedCampaign): ReadonlyMap<string, number> {
    const known = this.#truths.get(id) ?? truthsOf(this.#model.fleet.skills, on, id, this.#model.seed);
    this.#truths.set(id, known);
    return known;
  }

  /** Each tree crosses once for all agents of this process, as for the agents of one node. */
  async #bindingsOf(agent: SimulatedAgent, { digest }: ArtifactRef): Promise<string[]> {
    const fetched =
      this.#bindings.get(digest) ??
      ArtifactStore.open(agent.nc)
        .then(async (store) => store.get(digest))
        .then((tar) => [
          ...new Set(
            Buffer.from(tar)
              .toString("latin1")
              .match(/bindings\/[a-z]+\/[A-Za-z0-9-]+\.cpp/g) ?? [],
          ),
        ]);
    this.#bindings.set(digest, fetched);
    fetched.catch(() => this.#bindings.delete(digest));
    return fetched;
  }
}

function treesOf(spec: JobSpec): ArtifactRef[] {
  const arms = spec.kind === "bench" ? [spec.challenger.stack, spec.champion.stack] : [];
  return spec.kind === "build" ? [spec.tree] : arms.flatMap((stack) => (stack.source === "build" ? [stack.build.tree] : []));
}

function misdeedOf(faults: Misdeeds, name: string): keyof Misdeeds | null {
  let u = createRng(name).next();
  for (const misdeed of ["freeze", "stale", "duplicate", "impossible"] as const) {
    if (u < faults[misdeed]) return misdeed;
    u -= faults[misdeed];
  }
  return null;
}

/** What a broken agent does with a good answer. */
async function misbehave(agent: SimulatedAgent, job: Job, lease: Lease, outcome: Outcome, how: keyof Misdeeds | null): Promise<Outcome> {
  switch (how) {
    case null:
      return outcome;
    case "freeze":
      agent.frozen = true;
      await delay(FROZEN_TTLS * lease.ttlMs);
      agent.frozen = false;
      return outcome;
    case "stale":
      await agent.publish(agent.signed(job, lease, outcome, { leaseToken: Math.max(1, lease.token - 1) }));
      return outcome;
    case "duplicate": {
      const result = agent.signed(job, lease, outcome);
      await agent.publish(result);
      await agent.publish(result);
      return outcome;
    }
    case "impossible":
      if (outcome.status !== "measured") return outcome;
      return { ...outcome, comparison: { ...outcome.comparison, point: 1e6, lo: 9e5, hi: 1.1e6 } };
  }
}
