import { ratioOf, type CheckReport, type Measurement, type Outcome, type Ratio } from "@vibeserve/shared";
import { CAMPAIGN } from "../campaign/baselines.ts";
import { champion, elapsedMs, find, SEED, type Campaign } from "../campaign/campaign.machine.ts";
import { crownFailure } from "../campaign/crowning.ts";
import { jobOutcome } from "../campaign/job-effect.ts";
import { commandLine } from "../command-line.ts";
import { championRate, screeningRate, type Rate } from "./rates.ts";

export interface BaselineRow {
  engine: string;
  version: string | null;
  setting: string | null;
  /** Champion over the engine's strongest setting, direct pairs on the full workload; null where it could not be measured. */
  ratio: Ratio | null;
  rates: { champion: number; baseline: number } | null;
  sweep: { setting: string; value: number }[];
  accuracy: CheckReport | null;
  /** Why there is no ratio. */
  missing: string | null;
}

export interface ExperimentRow {
  id: string;
  skills: string[];
  hypothesis: string;
  expected: number;
  parent: string;
  outcome: string;
  reason: string;
  ratio: Ratio | null;
  /** What the screening measured. */
  rate: Rate | null;
  seconds: number;
}

export interface CampaignReport {
  id: string;
  target: string;
  state: "running" | "ended";
  outcome: string | null;
  reason: string | null;
  searchEnded: string | null;
  metric: { name: string; unit: string; direction: string };
  device: string | null;
  isa: string | null;
  cores: number | null;
  sandbox: string | null;
  simulated: boolean;
  /** The target said that it had never been run on its device. Absent: it had. */
  unverified?: true | undefined;
  workloadDigest: string;
  commits: { seed: string | null; champion: string | null };
  accuracy: { seed: CheckReport | null; champion: CheckReport | null; class: string };
  champion: { experimentId: string; branch: string; commit: string; bindings: Record<string, string>; rate: Rate | null } | null;
  ratioToSeed: (Ratio & { workload: "slice" }) | null;
  certificate: Measurement["certificate"] | null;
  champions: { experimentId: string; at: number; ratio: Ratio; repeat: Ratio }[];
  baselines: BaselineRow[];
  experiments: ExperimentRow[];
  /** Every idea that was filed, tried or not. */
  backlog: { id: string; title: string; strategy: string; reason: string; experiments: readonly string[] }[];
  uncrowned: { experimentId: string; reason: string }[];
  toolVersions: { name: string; version: string; digest: string | null }[];
  elapsedS: number;
  repeat: string;
}

export interface Report {
  v: 1;
  kind: "report";
  campaigns: CampaignReport[];
}

/** The report of one campaign, derived from its state alone; works at any moment. */
export function campaignReport(c: Campaign): CampaignReport {
  const ask = (experiment: string, step: string): Outcome | null => jobOutcome(c, experiment, step);
  const check = (experiment: string, step: string): CheckReport | null => {
    const a = ask(experiment, step);
    return a?.status === "checked" ? a.report : null;
  };
  const crowned = c.champions.at(-1) ?? null;
  const last = crowned ? ask(crowned.experimentId, "repeat") : null;
  const againstSeed = c.champions.length === 1 && last?.status === "measured" ? last : null;
  return {
    id: c.id,
    target: c.target.name,
    state: c.ended ? "ended" : "running",
    outcome: c.ended?.outcome ?? null,
    reason: c.ended?.reason ?? null,
    searchEnded: c.searchEnded,
    metric: c.target.objective,
    device: c.device?.name ?? null,
    isa: c.device?.isa ?? null,
    cores: c.device?.cores ?? null,
    sandbox: c.agent?.sandbox ?? null,
    simulated: c.device?.simulated ?? false,
    ...(c.target.verified === false ? { unverified: true as const } : {}),
    workloadDigest: c.workloadDigest,
    commits: { seed: c.seed.git?.commit ?? null, champion: crowned?.git.commit ?? null },
    accuracy: {
      seed: check(SEED, "check"),
      champion: crowned ? check(crowned.experimentId, "crown-check") : null,
      class: c.target.accuracy.class,
    },
    champion: crowned
      ? {
          experimentId: crowned.experimentId,
          branch: crowned.branch,
          commit: crowned.git.commit,
          bindings: crowned.bindings,
          rate: championRate(c),
        }
      : null,
    ratioToSeed: againstSeed ? { ...ratioOf(againstSeed.comparison), workload: "slice" } : null,
    certificate: againstSeed?.challenger.certificate ?? null,
    champions: c.champions.map(({ experimentId, at, ratio, repeat }) => ({ experimentId, at: (at - c.createdAt) / 1000, ratio, repeat })),
    baselines: c.options.baselines.map((engine) =>
      baselineRow(engine, ask(CAMPAIGN, `baseline-${engine}`), ask(CAMPAIGN, `versus-${engine}`)),
    ),
    experiments: c.experiments.map((x) => experimentRow(c, x.id)),
    backlog: c.backlog.map(({ id, title, strategy, reason, experiments }) => ({ id, title, strategy, reason, experiments })),
    uncrowned: c.leaders.flatMap((id) => {
      const reason = id === champion(c) ? null : crownFailure(c, id);
      return reason === null ? [] : [{ experimentId: id, reason }];
    }),
    toolVersions: c.agent?.tools ?? [],
    elapsedS: elapsedMs(c, c.lastAt) / 1000,
    repeat: c.options.repeat ?? `${commandLine("submit", ["TARGET"])} (the target named ${c.target.name})`,
  };
}

function baselineRow(engine: string, ready: Outcome | null, versus: Outcome | null): BaselineRow {
  const row: BaselineRow = { engine, version: null, setting: null, ratio: null, rates: null, sweep: [], accuracy: null, missing: null };
  if (ready?.status === "baseline-ready")
    Object.assign(row, { version: ready.version, setting: ready.strongest, sweep: ready.sweep, accuracy: ready.accuracy });
  if (versus?.status === "measured")
    return { ...row, ratio: ratioOf(versus.comparison), rates: { champion: versus.challenger.value, baseline: versus.champion.value } };
  const stopped = [ready, versus].find((a) => a?.status === "failed");
  return { ...row, missing: stopped?.status === "failed" ? `${stopped.failure.code}: ${stopped.failure.message}` : "not measured yet" };
}

function experimentRow(c: Campaign, id: string): ExperimentRow {
  const x = find(c, id);
  if (!x) throw new Error(`campaign ${c.id}: no experiment ${id}`);
  return {
    id,
    skills: x.hypothesis.skills,
    hypothesis: x.hypothesis.claim,
    expected: x.hypothesis.expected.ratio,
    parent: x.hypothesis.parent,
    outcome: x.settled?.outcome ?? "running",
    reason: x.settled?.reason ?? "not settled yet",
    ratio: x.settled?.ratio ?? null,
    rate: screeningRate(c, id),
    seconds: x.settled ? (x.settledAt - x.proposedAt) / 1000 : 0,
  };
}
