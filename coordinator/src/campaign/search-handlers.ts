import type { Bindings, CampaignFact, ChampionRef, Job, Provenance, Target } from "@vibeserve/shared";
import type { ChampionFile } from "../checkpoint/champion-file.ts";
import { CandidateFilesError } from "../checkpoint/candidate-files.ts";
import type { CampaignRepository } from "../checkpoint/repository.ts";
import type { AgentRegistry } from "../fleet/agent-registry.ts";
import { bindDevice } from "../fleet/bind.ts";
import type { Models } from "../agents/models.ts";
import { sessionHandlers } from "../agents/session-handlers.ts";
import { dispatchJob, type Claim } from "../fleet/dispatch.ts";
import { servedAs } from "../findings/champions.ts";
import { NOTHING, type Elsewhere } from "../findings/elsewhere.ts";
import { sharedTarget } from "../fleet/builders.ts";
import type { Observation } from "../playbook/estimate.ts";
import type { Catalog } from "../stack/catalog.ts";
import { find, type Campaign } from "./campaign.machine.ts";
import { blocked, type EffectHandlers } from "./effect-handlers.ts";
import { nextMember } from "./portfolio.ts";
import type { Experiment } from "./experiment.machine.ts";
import { draft, planNext, searchOver } from "./planning.ts";
import { planTrial } from "./trial.ts";

export interface SearchDeps {
  /** A job that was asked for may go out; not to the devices that are to be avoided, where others can take it. */
  offer: (job: Job, claim: Claim, avoid: readonly string[]) => void;
  registry: AgentRegistry;
  /** The stack and skills under this seed, if they still have the digest that the campaign was created with; throws when they have changed. */
  catalog: (seed: string, digest: string) => Promise<Catalog>;
  repository: (campaign: string) => Promise<CampaignRepository>;
  /** What earlier campaigns measured on the same ISA. */
  findings: (campaign: Campaign, catalog: Catalog) => readonly Observation[];
  /** What campaigns of other scopes leave to this one; absent: nothing. */
  elsewhere?: (campaign: Campaign, catalog: Catalog) => Elsewhere;
  /** A champion of any campaign, for trials; null: there is none. */
  crowned?: (of: ChampionRef) => { commit: string; bindings: Bindings; provenance: Provenance } | null;
  /** Notes what serving this champion needs. */
  champion: (champion: ChampionFile) => void;
  /** Lines about ideas that earlier campaigns proved or abandoned. */
  lessons: (campaign: Campaign) => readonly string[];
  artifact: (digest: string) => Promise<Uint8Array>;
  models: Models;
  now: () => number;
}

/** The effects of a search. The playbook plans by itself; a model chooses among what the playbook finds legal, once there is a choice. */
export function searchHandlers(deps: SearchDeps): EffectHandlers {
  const catalogOf = async ({ target }: Campaign, digest: string) => offered(target, await deps.catalog(target.seed, digest));
  return {
    bind: (_effect, context) => bindDevice(deps.registry, context),
    plan: async (effect, context) => {
      const { campaign, stackDigest } = context;
      if (campaign.options.trial) return planTrial(campaign);
      const catalog = await catalogOf(campaign, stackDigest);
      const findings = deps.findings(campaign, catalog);
      const { observations, ports, lines } = deps.elsewhere?.(campaign, catalog) ?? NOTHING;
      const fact = planNext(campaign, catalog, [...observations, ...findings], deps.now(), ports);
      if (fact.type === "backlog.filed") return fact;
      const { agent } = campaign.target;
      if (agent === "playbook") return fact;
      const over = () => searchOver(context.current(), deps.now());
      const ended = over();
      if (ended !== null) return { type: "search.ended", reason: ended };
      // What earlier campaigns proved goes in together, whoever plans.
      if (fact.type === "experiment.proposed" && fact.issues.length > 1) return fact;
      const options = fact.type === "experiment.proposed" ? fact.weighed : [];
      const of = { catalog, options, findings, lessons: [...lines, ...deps.lessons(campaign)] };
      if (agent !== "portfolio") return deps.models.plan(effect.id, context, agent, of, over);
      const by = nextMember(campaign);
      if (by === null) return { type: "search.ended", reason: `no member plans any more: ${stopReasons(campaign)}` };
      const planned = by === "playbook" ? fact : await deps.models.plan(effect.id, context, by, of, over);
      if (planned.type === "search.ended") return { type: "planner.stopped", by, reason: planned.reason };
      return planned.type === "experiment.proposed" ? { ...planned, by } : planned;
    },
    draft: async ({ experimentId }, { campaign, stackDigest }) => {
      const catalog = await catalogOf(campaign, stackDigest);
      const experiment = find(campaign, experimentId);
      if (!experiment) throw new Error(`no experiment ${experimentId}`);
      const repository = await deps.repository(campaign.id);
      if (campaign.options.trial && experiment.portOf) return draftTrial(deps, campaign, experiment, experiment.portOf);
      const parent = find(campaign, experiment.hypothesis.parent);
      const parentTree = parent?.provenance === "model" && parent.git ? await repository.readTree(parent.git.commit) : null;
      const { files, bindings, message, parentCommit } = draft(campaign, catalog, experimentId, parentTree);
      const candidate = { experimentId, files, message, parent: parentCommit, at: experiment.proposedAt };
      const git = await repository.commitTree(candidate).catch((error: unknown) => {
        if (error instanceof CandidateFilesError && parentTree) return error;
        throw error;
      });
      // Says nothing of the skill: what a model wrote before stands where its files would.
      if (git instanceof Error) return blocked(experimentId, `its files do not go together with what a model wrote: ${git.message}`);
      return { type: "experiment.drafted", experimentId, git, bindings, provenance: experiment.provenance };
    },
    ...sessionHandlers({ ...deps, catalog: catalogOf }),
    dispatch: (effect, context) =>
      dispatchJob(deps.offer, deps.now, (agent, device) => sharedTarget(agent, device, deps.registry.list()), effect, context),
    crown: async ({ fact }, { campaign }) => {
      const { id, agent } = campaign;
      const crowned = { ...fact, branch: await (await deps.repository(id)).crown(fact.git.commit) };
      if (!agent) throw new Error(`campaign ${id} has no agent`);
      const { sandbox } = agent;
      deps.champion({ v: 1, kind: "champion", campaign: id, ...servedAs(campaign, crowned), sandbox, crownedAt: deps.now() });
      return crowned;
    },
  };
}

/** The champion's own files on top of the seed here: the same tree, and so the same candidate. */
async function draftTrial(deps: SearchDeps, campaign: Campaign, x: Experiment, of: ChampionRef): Promise<CampaignFact> {
  const { id: experimentId, proposedAt: at, hypothesis } = x;
  const origin = deps.crowned?.(of) ?? null;
  if (!origin) return blocked(experimentId, `there is no champion ${of.experimentId} of a campaign ${of.campaign} here`);
  const files = await (await deps.repository(of.campaign)).readTree(origin.commit);
  const message = `${experimentId}: ${hypothesis.claim}\n`;
  const candidate = { experimentId, files, message, parent: campaign.seed.git?.commit ?? null, at };
  const git = await (await deps.repository(campaign.id)).commitTree(candidate);
  return { type: "experiment.drafted", experimentId, git, bindings: origin.bindings, provenance: origin.provenance };
}

const stopReasons = (c: Campaign): string =>
  Object.entries(c.stopped)
    .map(([by, why]) => `${by}: ${why}`)
    .join("; ");

/** What this target's agent may put together without writing it. */
const offered = ({ bindings }: Target, catalog: Catalog): Catalog => (bindings === "none" ? { ...catalog, skills: new Map() } : catalog);
