import type { AgentInfo, CampaignOptions, Device, RequalifyCause, Target } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import { commandLine } from "../command-line.ts";
import type { Champion } from "./champions.ts";
import { toolsDigestOf } from "./finding.ts";
import { retests, standingOf } from "./standing.ts";

/** A re-qualification to be submitted: a trial campaign. */
export interface Requalification {
  champion: Champion;
  target: Target;
  options: CampaignOptions;
}

/** A target on an instruction set: where champions compete. */
export const placeOf = (c: Campaign): string => `${c.target.name}@${c.device?.isa ?? "?"}`;

/** The champion that was crowned last of each target and instruction set. champions: newest first, as championsOf gives them. */
export const newestChampions = (champions: readonly Champion[]): Champion[] =>
  [...Map.groupBy(champions, (x) => placeOf(x.campaign)).values()].flatMap(([first]) => first ?? []);

/** Labels that tell pools of one machine apart; a target that names none of them could be tried again on another than it was proven on. */
const PLACE = ["vibeserve.dev/cpu.isa", "vibeserve.dev/masked", "vibeserve.dev/pool"];

/**
 * The target of this name as it was last submitted for a search, for a trial on devices like `device`: nothing plans, nothing is compared with other engines.
 * Null: there is no such target.
 */
export function trialTarget(name: string, device: Device | null, campaigns: readonly Campaign[]): Target | null {
  const searches = campaigns.filter((c) => c.target.name === name && c.options.trial === undefined);
  const newest = searches.reduce<Campaign | null>((a, b) => (a && a.createdAt > b.createdAt ? a : b), null);
  if (!newest) return null;
  const { portfolio: _, ...target } = newest.target;
  const place = Object.entries(device?.labels ?? {}).filter(([key]) => PLACE.includes(key));
  return { ...target, device: { ...target.device, ...Object.fromEntries(place) }, agent: "playbook", baselines: [] };
}

/** Tests the champion, and if it does not hold, the one before it of the same place that was not rolled back. */
export function requalification(
  champion: Champion,
  because: RequalifyCause,
  { champions, campaigns, agents }: { champions: readonly Champion[]; campaigns: readonly Campaign[]; agents: readonly AgentInfo[] | null },
): Requalification {
  const { target: name } = champion.release;
  const before = champions.find(
    (x) =>
      x.crowned.at < champion.crowned.at &&
      placeOf(x.campaign) === placeOf(champion.campaign) &&
      x.release.treeDigest !== champion.release.treeDigest &&
      standingOf(x, campaigns, agents).state !== "rolled-back",
  );
  const target = trialTarget(name, champion.campaign.device, campaigns);
  if (!target) throw new Error(`no campaign of target ${name}`);
  const tested = [champion, ...(before ? [before] : [])].map((x) => x.release.champion);
  const repeat = commandLine("requalify", [champion.name, "--because", because]);
  return { champion, target, options: { baselines: [], repeat, trial: { purpose: "requalify", because, champions: tested } } };
}

/**
 * What is to be tested now that agents are registered as they are: the newest champions that are stale. One that was tested with the very tools that are
 * registered now is not tested again by itself, whatever came of it.
 */
export function due(champions: readonly Champion[], campaigns: readonly Campaign[], agents: readonly AgentInfo[]): Requalification[] {
  const asNow = ({ agentId, tools }: AgentInfo): boolean => {
    const now = agents.find((a) => a.agentId === agentId);
    return now !== undefined && toolsDigestOf(now.tools) === toolsDigestOf(tools);
  };
  const wasTested = (x: Champion): boolean => campaigns.some((c) => retests(c, x) && (c.agent === null || asNow(c.agent)));
  return newestChampions(champions).flatMap((champion) => {
    const { state, changes } = standingOf(champion, campaigns, agents);
    const [first] = changes;
    if (state !== "stale" || !first || wasTested(champion)) return [];
    return [requalification(champion, first.cause, { champions, campaigns, agents })];
  });
}
