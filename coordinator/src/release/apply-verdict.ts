import { countOf, nameOf, type Release } from "@vibeserve/shared";
import { SEED, type Campaign } from "../campaign/campaign.machine.ts";
import { verdictOf } from "../campaign/trial.ts";
import { championsOf } from "../findings/champions.ts";
import { changeChannel, channels, readChannel } from "./channel.ts";

/**
 * Takes every channel that serves a champion which this re-qualification did not confirm back to what it did: the last good champion, or the seed. What was
 * promoted after the verdict stays: somebody insisted. Doing it again changes nothing. Returns the channels that were changed.
 */
export function applyVerdict(data: string, trial: Campaign, campaigns: readonly Campaign[]): string[] {
  const verdict = verdictOf(trial);
  const { ended } = trial;
  if (verdict?.verdict !== "rolled-back" || !ended) return [];
  const { to } = verdict;
  const release = to === "seed" || to === null ? seedRelease(trial) : championsOf(campaigns).find((x) => x.name === nameOf(to))?.release;
  if (!release) return [];
  return channels(data).filter((name) => {
    const { current } = readChannel(data, name);
    if (!current || current.at > ended.at || nameOf(current.release.champion) !== nameOf(verdict.champion)) return false;
    changeChannel(data, name, () => ({
      action: "rollback",
      release,
      exportedTo: null,
      at: Date.now(),
      reason: ended.reason,
      overridden: null,
    }));
    return true;
  });
}

/** The seed as the trial drafted and checked it: its ratio to itself is 1. */
function seedRelease({ id: campaign, seed, target, device }: Campaign): Release | null {
  if (!seed.git) return null;
  const even = { point: 1, lo: 1, hi: 1, pairs: 0 };
  return {
    champion: { campaign, experimentId: SEED },
    ...{ target: target.name, model: target.model, device: target.device, ...countOf(target), provenance: seed.provenance },
    ...{ commit: seed.git.commit, treeDigest: seed.git.treeDigest, branch: "refs/experiments/seed" },
    evidence: { ratio: even, repeat: even, jobs: [], simulated: device?.simulated ?? false },
  };
}
