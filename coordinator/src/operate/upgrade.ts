import { older } from "../version.ts";
import { whyNot, type Release } from "./release-file.ts";

/** What is known of an installation before another release takes it over. */
export interface Installed {
  /** By the data folder; null: no folder is at hand, or it does not say. */
  data: Release | null;
  /** Of the coordinator that runs; null: none does. */
  coordinator: Release | null;
  agents: readonly { agentId: string; state: string; version: string | null; protocol?: number | undefined }[];
  /** Campaigns whose log this release can't read. */
  unreadable: readonly { campaign: string; reason: string }[];
}

export interface UpgradeCheck {
  ok: boolean;
  from: Release;
  to: Release;
  /** Why it must not be done; empty: it may. */
  refused: string[];
  /** What to do besides. */
  advice: string[];
  /** They would get no work until they are of this release too. */
  tooOld: string[];
  /** They are of a later protocol than this release. */
  tooNew: string[];
  /** Enrolled and not heard of: nobody knows their release before they come back. */
  unknown: string[];
}

/** May the release `to` take over? Pure. */
export function checkUpgrade(installed: Installed, to: Release): UpgradeCheck {
  const { data, coordinator, agents, unreadable } = installed;
  const from = highest([data, coordinator]) ?? { version: "unknown", protocol: 1, log: 1 };
  const refused = [whyNot(from, to)].filter((why) => why !== null);
  for (const { campaign, reason } of unreadable) refused.push(`campaign ${campaign} can't be read by release ${to.version}: ${reason}`);
  const inside = agents.filter((a) => a.state !== "revoked" && a.state !== "waiting");
  const ids = (wanted: (agent: (typeof inside)[number]) => boolean) =>
    inside.filter(wanted).map((a) => `${a.agentId} (${a.version ?? "?"})`);
  const of = (a: (typeof inside)[number]) => a.protocol ?? 1;
  const tooOld = ids((a) => a.version !== null && of(a) < to.protocol);
  const tooNew = ids((a) => a.version !== null && of(a) > to.protocol);
  const advice: string[] = [];
  if (to.protocol > from.protocol)
    advice.push(
      `protocol ${from.protocol} becomes ${to.protocol}: install coordinator and agents together; jobs under way are given out again`,
    );
  else if (older(to.version, from.version))
    advice.push(
      `${to.version} is older than ${from.version}, of the same protocol and log: every log was read with it, agents may have to go first`,
    );
  else
    advice.push("update the coordinator first, then its agents: within one protocol the reader must know at least as much as the writer");
  if (tooOld.length > 0) advice.push(`too old for protocol ${to.protocol}, no work until they are updated: ${tooOld.join(", ")}`);
  if (tooNew.length > 0) advice.push(`of a later protocol than ${to.protocol}, no work until they are put back: ${tooNew.join(", ")}`);
  return {
    ok: refused.length === 0,
    from,
    to,
    refused,
    advice,
    tooOld,
    tooNew,
    unknown: inside.filter((a) => a.version === null).map((a) => a.agentId),
  };
}

/** Each number at its highest: what any of them wrote must be readable. */
function highest(releases: readonly (Release | null)[]): Release | null {
  const known = releases.filter((r) => r !== null);
  const [first] = known;
  if (!first) return null;
  const last = known.reduce((a, b) => (older(a.version, b.version) ? b : a));
  return { version: last.version, protocol: Math.max(...known.map((r) => r.protocol)), log: Math.max(...known.map((r) => r.log)) };
}
