import type { JetStreamClient } from "@nats-io/jetstream";
import type { ChampionFile } from "../checkpoint/champion-file.ts";
import type { CampaignRepository } from "../checkpoint/repository.ts";
import type { AgentRegistry } from "../fleet/agent-registry.ts";
import { bindDevice } from "../fleet/bind.ts";
import { dispatchJob } from "../fleet/dispatch.ts";
import type { Observation } from "../playbook/estimate.ts";
import type { Catalog } from "../stack/catalog.ts";
import { find, type Campaign } from "./campaign.machine.ts";
import type { EffectHandlers } from "./effect-handlers.ts";
import { draft, planNext } from "./planning.ts";

export interface SearchDeps {
  js: JetStreamClient;
  registry: AgentRegistry;
  /** The stack and skills under this seed, if they still have the digest that the campaign was created with; throws when they have changed. */
  catalog: (seed: string, digest: string) => Promise<Catalog>;
  repository: (campaign: string) => Promise<CampaignRepository>;
  /** What earlier campaigns measured on the same ISA. */
  findings: (campaign: Campaign, catalog: Catalog) => readonly Observation[];
  /** Notes what serving this champion needs. */
  champion: (champion: ChampionFile) => void;
  now: () => number;
}

/** The effects of a campaign whose agent is the playbook. */
export function searchHandlers(deps: SearchDeps): EffectHandlers {
  return {
    bind: (_effect, context) => bindDevice(deps.registry, context),
    plan: async (_effect, { campaign, stackDigest }) => {
      const catalog = await deps.catalog(campaign.target.seed, stackDigest);
      return planNext(campaign, catalog, deps.findings(campaign, catalog), deps.now());
    },
    draft: async ({ experimentId }, { campaign, stackDigest }) => {
      const catalog = await deps.catalog(campaign.target.seed, stackDigest);
      const { files, bindings, message, parentCommit } = draft(campaign, catalog, experimentId);
      const experiment = find(campaign, experimentId);
      if (!experiment) throw new Error(`no experiment ${experimentId}`);
      const repository = await deps.repository(campaign.id);
      const git = await repository.commitTree({ experimentId, files, message, parent: parentCommit, at: experiment.proposedAt });
      return { type: "experiment.drafted", experimentId, git, bindings, provenance: experiment.provenance };
    },
    dispatch: (effect, context) => dispatchJob(deps.js, deps.now, effect, context),
    crown: async ({ fact }, { campaign }) => {
      const { commit, treeDigest } = fact.git;
      const branch = await (await deps.repository(campaign.id)).crown(commit);
      const { name: target, model, device } = campaign.target;
      if (!campaign.agent) throw new Error(`campaign ${campaign.id} has no agent`);
      const provenance = find(campaign, fact.experimentId)?.provenance ?? "model";
      deps.champion({
        v: 1,
        kind: "champion",
        campaign: campaign.id,
        target,
        commit,
        treeDigest,
        branch,
        provenance,
        sandbox: campaign.agent.sandbox,
        model,
        device,
        crownedAt: deps.now(),
      });
      return { ...fact, branch };
    },
  };
}
