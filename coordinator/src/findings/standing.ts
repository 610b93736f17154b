import { countOf, nameOf, type AgentInfo, type ChampionRef, type Device, type RequalifyCause, type Tool } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import { verdictOf } from "../campaign/trial.ts";
import type { Champion } from "./champions.ts";

/** Something that a champion was proven with and that is another now. */
export interface Change {
  cause: RequalifyCause;
  /** In words: "c++ 12.2.0 → 13.1.0". */
  what: string;
}

/** How a champion stands today, derived from the logs and from who is registered. */
export interface Standing {
  /** stale: something changed since it was last proven. requalifying: it is being tested. rolled-back: it was tested and not confirmed. */
  state: "proven" | "stale" | "requalifying" | "rolled-back";
  /** Campaign of its last proof, and when that was. */
  proof: { campaign: string; at: number };
  changes: Change[];
  reason: string;
  /** Rolled back: what is to be served instead. */
  to: ChampionRef | "seed" | null;
}

/** agents: null: nobody can say what is registered, so no tool has changed as far as anyone knows. campaigns: all, trials included. */
export function standingOf(champion: Champion, campaigns: readonly Campaign[], agents: readonly AgentInfo[] | null): Standing {
  const trials = campaigns.filter((c) => retests(c, champion)).sort((a, b) => a.createdAt - b.createdAt);
  const proven = trials.findLast((c) => verdictOf(c)?.verdict === "still-good") ?? champion.campaign;
  const proof = { campaign: proven.id, at: proven === champion.campaign ? champion.crowned.at : (proven.ended?.at ?? 0) };
  const open = trials.find((c) => c.ended === null);
  const last = trials.findLast((c) => ["still-good", "rolled-back"].includes(verdictOf(c)?.verdict ?? ""));
  const verdict = last ? verdictOf(last) : null;
  // After a verdict against it, what matters is whether anything has changed since: then it may be tested again.
  const changes = changesSince(verdict?.verdict === "rolled-back" && last ? last : proven, campaigns, agents);
  const words = changes.map((c) => c.what).join("; ");
  if (open) return { state: "requalifying", proof, changes, reason: `campaign ${open.id} tests it`, to: null };
  if (verdict?.verdict === "rolled-back")
    return { state: "rolled-back", proof, changes, reason: `campaign ${last?.id ?? ""}: ${verdict.reason}`, to: verdict.to };
  if (changes.length > 0) return { state: "stale", proof, changes, reason: words, to: null };
  return { state: "proven", proof, changes, reason: "nothing has changed since, as far as is known", to: null };
}

/** Is `c` the re-qualification of this champion? */
export function retests({ options: { trial } }: Campaign, champion: Champion): boolean {
  const [first] = trial?.purpose === "requalify" ? trial.champions : [];
  return first !== undefined && nameOf(first) === champion.name;
}

/** What differs between what `c` was measured with and what there is now: its agent's tools and device, and its target as it was last submitted. */
function changesSince(c: Campaign, campaigns: readonly Campaign[], agents: readonly AgentInfo[] | null): Change[] {
  const now = agents?.find((a) => a.agentId === c.agent?.agentId);
  const newest = campaigns.filter((o) => o.target.name === c.target.name).reduce((a, b) => (b.createdAt > a.createdAt ? b : a), c);
  return [
    ...(now ? toolChanges(c.agent?.tools ?? [], now.tools) : []),
    ...labelChanges(
      c.device,
      now?.devices.find((d) => d.id === c.device?.id),
    ),
    ...(newest.target.model.sha256 === c.target.model.sha256
      ? []
      : [{ cause: "model" as const, what: `model ${c.target.model.name}: another file since campaign ${newest.id}` }]),
    ...(newest.workloadDigest === c.workloadDigest
      ? []
      : [{ cause: "workload" as const, what: `another workload since campaign ${newest.id}` }]),
    ...(countOf(newest.target).deviceCount === countOf(c.target).deviceCount
      ? []
      : [{ cause: "workload" as const, what: `on ${newest.target.deviceCount ?? 1} devices together since campaign ${newest.id}` }]),
  ];
}

const DRIVER = /driver|cuda|rocm|hip|metal|runtime|kernel/i;
const causeOf = (name: string): RequalifyCause => (DRIVER.test(name) ? "driver" : "toolchain");

function toolChanges(then: readonly Tool[], now: readonly Tool[]): Change[] {
  return [...new Set([...then, ...now].map((t) => t.name))].flatMap((name) => {
    const [a, b] = [then.find((t) => t.name === name), now.find((t) => t.name === name)];
    if (a && b && a.version === b.version && a.digest === b.digest) return [];
    const same = a?.version === b?.version ? ", another build" : "";
    return [{ cause: causeOf(name), what: `${name} ${a?.version ?? "none"} → ${b?.version ?? "none"}${same}` }];
  });
}

/** Of labels that name a driver or a runtime: others (load, tags) decide nothing. */
function labelChanges(then: Device | null, now: Device | undefined): Change[] {
  if (!then || !now) return [];
  return Object.keys({ ...then.labels, ...now.labels })
    .filter((key) => DRIVER.test(key) && then.labels[key] !== now.labels[key])
    .map((key) => ({ cause: "driver", what: `${key} ${then.labels[key] ?? "none"} → ${now.labels[key] ?? "none"}` }));
}
