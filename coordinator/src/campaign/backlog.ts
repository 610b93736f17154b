import type { BacklogIssue, Resolution } from "@vibeserve/shared";

/**
 * A campaign's ideas, kept outside any agent: each is filed once, before it is tried, and says where it stands.
 * available: may be tried. parked: the direction may be right, but its code failed or lost when it was tried. done: in the leader.
 */
export interface Issue extends BacklogIssue {
  strategy: "available" | "parked" | "done";
  /** Why it stands so: the reason of its last experiment. */
  reason: string;
  /** Experiments that carried it out, oldest first. */
  experiments: readonly string[];
}

export type Backlog = readonly Issue[];

/** Filing an id again changes nothing. */
export function filed(backlog: Backlog, issues: readonly BacklogIssue[]): Backlog {
  const fresh = issues.filter((i) => !backlog.some((old) => old.id === i.id));
  return [...backlog, ...fresh.map((i): Issue => ({ ...i, strategy: "available", reason: "not tried yet", experiments: [] }))];
}

export function taken(backlog: Backlog, issueIds: readonly string[], experimentId: string): Backlog {
  return backlog.map((i) => (issueIds.includes(i.id) ? { ...i, experiments: [...i.experiments, experimentId] } : i));
}

/** What a resolution says of the ideas behind the experiment. Several at once that did not work out say nothing of each (I8 for what was blocked). */
export function resolved(backlog: Backlog, experimentId: string, outcome: Resolution, reason: string): Backlog {
  const mine = backlog.filter((i) => i.experiments.at(-1) === experimentId);
  const strategy = outcome === "proven" ? "done" : mine.length === 1 && FAILED.has(outcome) ? "parked" : "available";
  return backlog.map((i) => (mine.includes(i) ? { ...i, strategy, reason } : i));
}

const FAILED: ReadonlySet<Resolution> = new Set(["disproven", "implementation_failed"]);
