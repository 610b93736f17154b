import { createRng, METRICS, SEAMS, sha256, type BuiltStack, type CampaignFact, type Device, type Target } from "@vibeserve/shared";
import { fold, pending, type Campaign } from "../campaign/campaign.machine.ts";
import type { Effect } from "../campaign/effect.ts";
import { draft, planNext } from "../campaign/planning.ts";
import type { Catalog } from "../stack/catalog.ts";
import { draw } from "./device-model.ts";
import { simulatedAgent } from "./simulated-records.ts";
import type { FleetFile, FleetKind } from "./fleet-file.ts";

type Skills = FleetFile["skills"];

/** A playbook's catalog of skills that have a name, a seam and a promise, and no code. */
export function catalogOf(skills: Skills): Catalog {
  const files = new Map<string, Buffer>(SEAMS.map((seam) => [`seed/${seam}.cpp`, Buffer.from(`// ${seam}\n`)]));
  for (const { id, seam } of skills) files.set(`bindings/${seam}/${id}.cpp`, Buffer.from(`// ${id}\n`));
  const entries = skills.map((s) => {
    const skill = {
      id: s.id,
      title: s.id,
      summary: s.id,
      appliesTo: {
        stacks: ["simulated"],
        devices: ["cpu", "nvidia", "amd", "apple"] as Device["kind"][],
        arch: [],
        models: [],
        workloads: [],
      },
      seams: [s.seam],
      binding: `${s.seam}/${s.id}.cpp`,
      requires: { isa: [], skills: [], cores: 1 },
      conflicts: [],
      expectedGain: { metric: METRICS.output_tokens_per_second.name, ratio: s.stated, source: "simulated" },
      activation: "simulated",
      failureModes: ["simulated"],
      sources: [],
    };
    return [s.id, { skill, text: "" }] as const;
  });
  const map = new Map(entries);
  return { stack: "simulated", files, skills: map, knowledge: map, digest: sha256(JSON.stringify(skills)) };
}

/** The seed's rate, tok/s. Only ratios matter. */
const SEED_RATE = 100;
/** What each skill really does for this campaign, over the seed's binding of its seam, by the path of its binding. */
export function truthsOf(skills: Skills, kind: FleetKind, campaign: string, seed: string): ReadonlyMap<string, number> {
  const random = createRng(`${seed} effects of ${campaign}`);
  const gain = (s: Skills[number]) => (typeof s.gain === "number" ? s.gain : (s.gain[kind.name] ?? 1));
  return new Map(skills.map((s) => [`bindings/${s.seam}/${s.id}.cpp`, gain(s) * Math.exp(s.sigma * random.normal())]));
}

export const rateWith = (bindings: Iterable<string>, truths: ReadonlyMap<string, number>): number =>
  [...bindings].reduce((product, binding) => product * (truths.get(binding) ?? 1), SEED_RATE);

/** How long its agent thinks and writes for an experiment. */
export const turnMs = ({ turn }: FleetFile, seed: string, campaign: string, experiment: string): number =>
  Math.round(1_000 * draw(turn, createRng(`${seed} turn ${campaign} ${experiment}`)));

/** Time is no limit of a simulated search; experiments are. */
const ENDLESS_S = 1e9;

/** One campaign on the product's own machine and planner. What would take time is named by `wants` and answered from outside. */
export class SimulatedCampaign {
  readonly id: string;
  readonly kind: FleetKind;
  readonly #catalog: Catalog;
  readonly #truths: ReadonlyMap<string, number>;
  readonly #rates = new Map<string, number>();
  readonly #begun = new Set<string>();
  #state: Campaign;

  constructor(id: string, kind: FleetKind, experiments: number, catalog: Catalog, skills: Skills, seed: string, at: number) {
    this.id = id;
    this.kind = kind;
    this.#catalog = catalog;
    this.#truths = truthsOf(skills, kind, id, seed);
    const target = targetOf(id, experiments);
    const options = { baselines: [], repeat: null };
    const created: CampaignFact = { type: "campaign.created", target, workloadDigest: sha256(id), stackDigest: catalog.digest, options };
    this.#state = fold(null, { v: 1, kind: "event", campaign: id, seq: 1, at, prev: sha256(id), fact: created });
  }

  get state(): Campaign {
    return this.#state;
  }

  append(fact: CampaignFact, at: number): void {
    const { seq } = this.#state;
    this.#state = fold(this.#state, { v: 1, kind: "event", campaign: this.id, seq: seq + 1, at, prev: sha256(String(seq)), fact });
  }

  /** Effects that are pending and not yet begun; each is named once. */
  wants(): Effect[] {
    const wanted = pending(this.#state).filter((effect) => !this.#begun.has(effect.id));
    for (const { id } of wanted) this.#begun.add(id);
    return wanted;
  }

  plan(now: number): CampaignFact {
    return planNext(this.#state, this.#catalog, [], now);
  }

  draft(experimentId: string): CampaignFact {
    const { files, bindings } = draft(this.#state, this.#catalog, experimentId, null);
    const digest = sha256([...files].map(([path, bytes]) => `${path} ${Buffer.from(bytes).toString()}`).join("\n"));
    const treeDigest = digest.slice(0, 40);
    this.#rates.set(treeDigest, rateWith(Object.values(bindings), this.#truths));
    const git = { commit: treeDigest, treeDigest, tree: { digest, bytes: 1 } };
    return { type: "experiment.drafted", experimentId, git, bindings, provenance: "shipped" };
  }

  rateOf({ treeDigest }: BuiltStack): number {
    const rate = this.#rates.get(treeDigest);
    if (rate === undefined) throw new Error(`campaign ${this.id}: nobody drafted tree ${treeDigest}`);
    return rate;
  }
}

export const bound = (kind: FleetKind): Extract<CampaignFact, { type: "device.bound" }> => {
  const device = deviceOf(kind, `${kind.name}-0`);
  const agent = { ...simulatedAgent(kind.name, "simulated", kind.name, [device], 1), pid: 1 };
  return { type: "device.bound", agent, device };
};

export const deviceOf = (kind: FleetKind, id: string): Device => ({
  id,
  kind: kind.device,
  name: `simulated ${kind.name}`,
  isa: "simulated",
  isaBits: [],
  cores: 1,
  cpus: "0",
  memBytes: 0,
  labels: kind.labels,
  simulated: true,
});

export function targetOf(name: string, experiments: number): Target {
  const workload = {
    arrival: { process: "closed" as const, concurrency: 8 },
    prompt: { distribution: "fixed" as const, tokens: 128 },
    output: { distribution: "fixed" as const, tokens: 128 },
    requests: 64,
  };
  return {
    v: 1,
    kind: "target",
    name,
    model: { name: "simulated", file: "simulated", sha256: sha256("simulated") },
    device: {},
    workload,
    slice: workload,
    objective: METRICS.output_tokens_per_second,
    accuracy: { class: "exact" },
    seed: "stacks/simulated",
    agent: "playbook",
    budget: { wallS: ENDLESS_S, experiments, usd: 0 },
    baselines: [],
  };
}
