import type { BacklogIssue, CampaignFact, Resolution } from "@vibeserve/shared";

/**
 * A campaign's ideas, kept outside any agent: each is filed once, before it is tried, and says where it stands.
 * available: may be tried. parked: the direction may be right, but its code failed or lost when it was tried. abandoned: it can't work, and why is on record.
 * done: in the leader.
 */
export interface Issue extends BacklogIssue {
  strategy: "available" | "parked" | "abandoned" | "done";
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

/** The planner moves an idea; what is in the leader stays there, and what was abandoned with a mechanism stays so. */
export function edited(backlog: Backlog, issue: string, strategy: "available" | "parked", reason: string): Backlog {
  const fixed = (i: Issue): boolean => i.strategy === "done" || i.strategy === "abandoned";
  return backlog.map((i) => (i.id === issue && !fixed(i) ? { ...i, strategy, reason } : i));
}

type Settled = Pick<Extract<CampaignFact, { type: "experiment.settled" }>, "outcome" | "reason" | "strategy" | "checkpoint">;

/** What a resolution says of the ideas behind the experiment. Several at once that did not work out say nothing of each (I8 for what was blocked). */
export function resolved(backlog: Backlog, experimentId: string, { outcome, reason, strategy: said, checkpoint }: Settled): Backlog {
  const mine = backlog.filter((i) => i.experiments.at(-1) === experimentId);
  const alone = mine.length === 1;
  const strategy = checkpoint === "leader" ? "done" : alone && said ? said : alone && FAILED.has(outcome) ? "parked" : "available";
  return backlog.map((i) => (mine.includes(i) ? { ...i, strategy, reason } : i));
}

const FAILED: ReadonlySet<Resolution> = new Set(["disproven", "implementation_failed"]);
