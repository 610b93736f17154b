import type {
  AgentInfo,
  Bindings,
  CampaignEvent,
  CampaignFact,
  Device,
  Job,
  JobResult,
  Measurement,
  Outcome,
  Skill,
  Target,
  Trial,
} from "@vibeserve/shared";
import { canonicalJson, sha256 } from "@vibeserve/shared";
import { find, fold, pending, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import type { Effect } from "../../coordinator/src/campaign/effect.ts";
import { draft, planNext } from "../../coordinator/src/campaign/planning.ts";
import type { Observation } from "../../coordinator/src/playbook/estimate.ts";
import type { Port } from "../../coordinator/src/findings/elsewhere.ts";
import { planTrial } from "../../coordinator/src/campaign/trial.ts";
import { composeTree } from "../../coordinator/src/stack/compose.ts";
import { SIMULATED_CERTIFICATE } from "../../coordinator/src/simulate/device-model.ts";
import type { Catalog } from "../../coordinator/src/stack/catalog.ts";

/** A simulated world for the pure machine: skills with a true gain each, jobs answered at once. Every record says that it is simulated. */

const hex = (s: string): string => sha256(s);

export const target: Target = {
  v: 1,
  kind: "target",
  name: "sim",
  model: { name: "m", file: "m.gguf", sha256: hex("m") },
  device: {},
  workload: {
    arrival: { process: "closed", concurrency: 8 },
    prompt: { distribution: "fixed", tokens: 128 },
    output: { distribution: "fixed", tokens: 96 },
    requests: 48,
  },
  slice: {
    arrival: { process: "closed", concurrency: 8 },
    prompt: { distribution: "fixed", tokens: 20 },
    output: { distribution: "fixed", tokens: 8 },
    requests: 8,
  },
  objective: { name: "output_tokens_per_second", unit: "tok/s", direction: "maximize" },
  accuracy: { class: "exact" },
  seed: "stacks/sim",
  agent: "playbook",
  budget: { wallS: 100_000, experiments: 40, usd: 0 },
  baselines: [],
};

export const device: Device = {
  id: "sim-0",
  kind: "cpu",
  name: "simulated",
  isa: "avx2",
  isaBits: ["avx2", "fma"],
  cores: 2,
  cpus: "0,1",
  memBytes: 1,
  labels: {},
  simulated: true,
};

export const agent: AgentInfo = {
  v: 1,
  kind: "agent",
  agentId: "a1",
  publicKey: "U",
  version: "0",
  pools: ["p"],
  devices: [device],
  tools: [],
  sandbox: "bubblewrap",
  state: "ready",
  pid: 1,
  host: "h",
  startedAt: 1,
};

export interface SimSkill {
  id: string;
  seam: Skill["seams"][number];
  stated: number;
  /** True gain over the seed's binding of its seam. */
  truth: number;
  isa?: string[];
  requires?: string[];
  /** "build" or "check" fails. */
  breaks?: "build" | "check";
}

export function catalog(skills: SimSkill[]): Catalog {
  const files = new Map<string, Buffer>([["core/main.cpp", Buffer.from("int main(){}\n")]]);
  for (const seam of ["threading", "linear", "attention", "layer", "head", "scheduler"])
    files.set(`seed/${seam}.cpp`, Buffer.from(`// ${seam}\n`));
  for (const s of skills) files.set(`bindings/${s.seam}/${s.id}.cpp`, Buffer.from(`// ${s.id}\n`));
  const entries = skills.map((s): [string, { skill: Skill; text: string }] => [
    s.id,
    {
      text: "",
      skill: {
        id: s.id,
        title: s.id,
        summary: s.id,
        appliesTo: { stacks: ["sim"], devices: ["cpu"], arch: [], models: [], workloads: [] },
        seams: [s.seam],
        binding: `${s.seam}/${s.id}.cpp`,
        requires: { isa: s.isa ?? [], skills: s.requires ?? [], cores: 1 },
        conflicts: [],
        expectedGain: { metric: "output_tokens_per_second", ratio: s.stated, source: "simulated" },
        activation: "-",
        failureModes: ["-"],
        sources: [],
      },
    },
  ]);
  return { stack: "sim", files, skills: new Map(entries), knowledge: new Map(entries), digest: hex("catalog") };
}

export class World {
  readonly events: CampaignEvent[] = [];
  campaign: Campaign | null = null;
  now = 1_000;
  /** What each job takes by the agent's clock. */
  workMs = 1;
  readonly catalog: Catalog;
  readonly skills: SimSkill[];
  /** Relative spread of a measured ratio. */
  readonly noise: number;
  /** What earlier campaigns on the same ISA measured. */
  readonly findings: readonly Observation[];
  readonly ports: readonly Port[];
  readonly device: Device;
  readonly origins: Readonly<Record<string, Bindings>>;

  constructor(
    skills: SimSkill[],
    options: {
      noise?: number;
      target?: Target;
      findings?: readonly Observation[];
      baselines?: string[];
      ports?: readonly Port[];
      device?: Device;
      trial?: Trial;
      /** Of the champions of other campaigns that a trial tests, by campaign. */
      origins?: Readonly<Record<string, Bindings>>;
    } = {},
  ) {
    this.skills = skills;
    this.catalog = catalog(skills);
    this.noise = options.noise ?? 0.005;
    this.findings = options.findings ?? [];
    this.ports = options.ports ?? [];
    this.device = options.device ?? device;
    this.origins = options.origins ?? {};
    this.append({
      type: "campaign.created",
      target: options.target ?? target,
      workloadDigest: hex("w"),
      stackDigest: this.catalog.digest,
      options: { baselines: options.baselines ?? [], repeat: "npm start", ...(options.trial ? { trial: options.trial } : {}) },
    });
  }

  append(fact: CampaignFact): void {
    this.now += 1_000;
    const seq = this.events.length + 1;
    const event: CampaignEvent = { v: 1, kind: "event", campaign: "sim", seq, at: this.now, prev: hex(String(seq)), fact };
    this.events.push(event);
    this.campaign = fold(this.campaign, event);
  }

  get state(): Campaign {
    if (!this.campaign) throw new Error("no campaign");
    return this.campaign;
  }

  /** Runs the machine to its end, or for at most `limit` effects. */
  run(limit = 2_000): Campaign {
    for (let i = 0; i < limit; i++) {
      const effect = pending(this.state)[0];
      if (!effect) return this.state;
      this.perform(effect);
    }
    return this.state;
  }

  perform(effect: Effect): void {
    switch (effect.type) {
      case "bind": {
        this.append({ type: "device.bound", agent, device: this.device });
        return;
      }
      case "plan": {
        this.append(
          this.state.options.trial ? planTrial(this.state) : planNext(this.state, this.catalog, this.findings, this.now, this.ports),
        );
        return;
      }
      case "draft": {
        const { files, bindings } = this.files(effect.experimentId);
        const digest = hex([...files].map(([p, b]) => p + Buffer.from(b).toString()).join());
        const git = { commit: digest.slice(0, 40), treeDigest: digest.slice(0, 40), tree: { digest, bytes: 1 } };
        this.append({ type: "experiment.drafted", experimentId: effect.experimentId, git, bindings, provenance: "shipped" });
        return;
      }
      case "dispatch": {
        const job: Job = { ...effect.job, issuedAt: this.now, pool: "p" };
        this.append({ type: "job.requested", job });
        this.append({ type: "job.settled", result: this.result(job, this.answer(job)), accepted: true, why: "current" });
        return;
      }
      case "crown": {
        this.append(effect.fact);
        return;
      }
      case "append": {
        this.append(effect.fact);
        return;
      }
      case "turn":
      case "prepare":
      case "conclude":
        throw new Error(`${effect.type}: there is no model in this world`);
    }
  }

  private files(experimentId: string): { files: ReadonlyMap<string, Uint8Array>; bindings: Bindings } {
    const origin = this.origins[find(this.state, experimentId)?.portOf?.campaign ?? ""];
    if (!this.state.options.trial || !origin) return draft(this.state, this.catalog, experimentId, null);
    return { files: composeTree(this.catalog, origin, []), bindings: origin };
  }

  result(job: Job, outcome: Outcome): JobResult {
    const { id: jobId, attempt } = job;
    return {
      v: 1,
      kind: "result",
      jobId,
      campaign: "sim",
      attempt,
      agentId: "a1",
      deviceId: "sim-0",
      leaseToken: 1,
      sandbox: "bubblewrap",
      startedAt: 1,
      endedAt: 1 + this.workMs,
      outcome,
      log: null,
      sig: "",
    };
  }

  answer(job: Job): Outcome {
    const broken = this.skills.find((s) => s.breaks !== undefined && this.treeHolds(job, s));
    switch (job.spec.kind) {
      case "build":
        if (broken?.breaks === "build")
          return { status: "failed", failure: { attribution: "candidate", code: "build-failed", message: "error", logTail: "" } };
        return { status: "built", buildDigest: hex(`build ${job.spec.treeDigest}`), cached: false, seconds: 1, bytes: 1 };
      case "check": {
        const ok = broken?.breaks !== "check";
        const gates = [{ name: "mean KL", value: ok ? 0.0001 : 3, unit: "nat", limit: "<= 0.001", ok }];
        return {
          status: "checked",
          seconds: 1,
          report: { ok, level: job.spec.level, gates, positions: 500, servedTokens: 100, firstFailure: null },
        };
      }
      case "bench": {
        const rate = (arm: typeof job.spec.challenger): number =>
          arm.stack.source === "build" ? this.rate(arm.stack.build.treeDigest) : 1;
        const [a, b] = [rate(job.spec.challenger), rate(job.spec.champion)];
        const half = 1 + this.noise;
        const comparison = {
          point: a / b,
          lo: a / b / half,
          hi: (a / b) * half,
          confidence: 0.95,
          pairs: 4,
          ratios: [a / b],
          stop: "max-pairs" as const,
        };
        return { status: "measured", comparison, challenger: this.measurement(a), champion: this.measurement(b), seconds: 1 };
      }
      case "profile":
      case "exec":
      case "baseline":
        return { status: "failed", failure: { attribution: "harness", code: "no-engine", message: "simulated", logTail: "" } };
    }
  }

  /** True speed of a tree: the product of the true gains of what it binds. */
  rate(treeDigest: string): number {
    const x = [this.state.seed, ...this.state.experiments].find((e) => e.git?.treeDigest === treeDigest);
    const bound = Object.values(x?.bindings ?? {});
    return this.skills.filter((s) => bound.includes(`bindings/${s.seam}/${s.id}.cpp`)).reduce((r, s) => r * s.truth, 10);
  }

  private treeHolds(job: Job, s: SimSkill): boolean {
    const x = [this.state.seed, ...this.state.experiments].find((e) => e.id === job.experiment);
    return Object.values(x?.bindings ?? {}).includes(`bindings/${s.seam}/${s.id}.cpp`);
  }

  private measurement(value: number): Measurement {
    const certificate = { ...SIMULATED_CERTIFICATE, sandbox: "bubblewrap" as const };
    const ref = { digest: hex("samples"), bytes: 1 };
    return {
      metric: target.objective,
      value,
      samplesRef: ref,
      seeds: [],
      workloadDigest: hex("w"),
      role: "challenger",
      treeDigest: null,
      buildDigest: null,
      engine: null,
      device,
      leaseToken: 1,
      toolVersions: [],
      certificate,
      sig: "",
    };
  }
}

export const same = (a: unknown, b: unknown): boolean => canonicalJson(a) === canonicalJson(b);
