import { nameOf, type Bindings, type Provenance, type Release } from "@vibeserve/shared";
import { find, type Campaign, type Crowned } from "../campaign/campaign.machine.ts";
import { jobsOf } from "../campaign/job-effect.ts";

/** A champion as its campaign's log tells of it. */
export interface Champion {
  /** "<campaign>.<experiment>". */
  name: string;
  campaign: Campaign;
  crowned: Crowned & { at: number };
  release: Release;
}

/** Every champion of these campaigns, the newest first. What a trial crowned was a champion before: it is not listed again. */
export function championsOf(campaigns: readonly Campaign[]): Champion[] {
  return campaigns
    .filter((c) => c.options.trial === undefined)
    .flatMap((c) =>
      c.champions.map((crowned): Champion => {
        const champion = { campaign: c.id, experimentId: crowned.experimentId };
        const { ratio, repeat } = crowned;
        const evidence = { ratio, repeat, simulated: c.device?.simulated ?? false, jobs: jobsOf(c, crowned.experimentId) };
        return { name: nameOf(champion), campaign: c, crowned, release: { champion, ...servedAs(c, crowned), evidence } };
      }),
    )
    .sort((a, b) => b.crowned.at - a.crowned.at);
}

/** What is to be served of what was crowned. */
export function servedAs(c: Campaign, { experimentId, git, branch }: Crowned): Omit<Release, "champion" | "evidence"> {
  const { name: target, model, device } = c.target;
  const { commit, treeDigest } = git;
  return { target, model, device, commit, treeDigest, branch, provenance: find(c, experimentId)?.provenance ?? "model" };
}

/** What a trial needs of a champion; null: that campaign crowned no such experiment. */
export function championOf(
  c: Campaign | undefined,
  experimentId: string,
): { commit: string; bindings: Bindings; provenance: Provenance } | null {
  const crowned = c?.champions.find((x) => x.experimentId === experimentId);
  if (!c || !crowned) return null;
  const { commit, provenance } = servedAs(c, crowned);
  return { commit, bindings: crowned.bindings, provenance };
}

/** By name, or by campaign: then its last. Undefined named: the newest of all. Null: there is none. */
export function championNamed(all: readonly Champion[], named: string | undefined): Champion | null {
  return all.find((x) => named === undefined || x.name === named || x.campaign.id === named) ?? null;
}
