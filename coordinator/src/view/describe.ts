import type { CampaignEvent, JobResult } from "@vibeserve/shared";
import { plain } from "../agents/prompt.ts";
import type { Campaign } from "../campaign/campaign.machine.ts";

/** A fact in one line for a person, without control characters: much of it are words of models. Null for facts that say nothing new to one. */
export function describe(e: CampaignEvent, c: Campaign): string | null {
  const said = told(e, c);
  const line = said === null ? null : plain(said);
  return line !== null && line.length > LINE ? `${line.slice(0, LINE - 1)}…` : line;
}

/** What models say is long; the log has all of it. */
const LINE = 500;

function told(e: CampaignEvent, c: Campaign): string | null {
  const { fact } = e;
  switch (fact.type) {
    case "campaign.created":
      return `campaign ${e.campaign}: target ${fact.target.name}, budget ${fact.target.budget.wallS} s`;
    case "campaign.paused":
      return `paused: ${fact.reason}`;
    case "campaign.resumed":
      return `resumed: ${fact.reason}`;
    case "campaign.ended":
      return `ended, ${fact.outcome}: ${fact.reason}`;
    case "device.bound":
      return `device ${fact.device.id}: ${fact.device.name}, ${fact.device.isa}, ${fact.device.cores} cores, sandbox ${fact.agent.sandbox}${fact.device.simulated ? ", SIMULATED" : ""}`;
    case "backlog.filed":
      return `backlog: ${fact.issues.length} ideas filed, first ${fact.issues[0]?.title ?? ""}`;
    case "experiment.proposed":
      return `${fact.experimentId} proposed: ${fact.hypothesis.claim}`;
    case "experiment.drafted":
      return `${fact.experimentId} drafted: commit ${fact.git.commit.slice(0, 10)}`;
    case "job.requested":
      return fact.job.attempt > 1 ? `${step(c, fact.job.id)} asked again, attempt ${fact.job.attempt}` : null;
    case "job.settled":
      return `${step(c, fact.result.jobId)} ${fact.accepted ? result(fact.result) : `result kept as evidence: ${fact.why}`}${fact.verdict ? `; ${fact.verdict.why}` : ""}`;
    case "job.expired":
      return `${step(c, fact.jobId)} attempt ${fact.attempt} expired: ${fact.why}`;
    case "evidence.dropped":
      return `agent ${fact.agentId} sends results that change nothing: ${fact.dropped} were thrown away so far`;
    case "results.suspected":
      return `device ${fact.deviceId} is under suspicion (${fact.why}): ${fact.jobs.length} of its answers are doubted`;
    case "planner.stopped":
      return `${fact.by} plans no more: ${fact.reason}`;
    case "search.ended":
      return `search ended: ${fact.reason}`;
    case "experiment.settled":
      return `${fact.experimentId} ${fact.outcome}: ${fact.reason}`;
    case "champion.crowned":
      return `champion ${fact.experimentId} crowned: ${fact.ratio.point.toFixed(2)}×, repeat ${fact.repeat.point.toFixed(2)}× [${fact.repeat.lo.toFixed(2)}, ${fact.repeat.hi.toFixed(2)}] over ${fact.repeat.pairs} pairs`;
    case "turn.requested":
      return null;
    case "turn.settled":
      return fact.outcome.status === "answered"
        ? `${fact.turnId} answered, $${fact.usd.toFixed(4)}`
        : fact.outcome.status === "said"
          ? `${fact.turnId} ${fact.outcome.calls.map((c) => c.tool).join(", ") || "said something"}, $${fact.usd.toFixed(4)}`
          : `${fact.turnId} failed: ${fact.outcome.code}: ${fact.outcome.message}`;
    case "call.prepared":
      return fact.problem === null ? null : `${fact.experimentId} ${fact.call}: ${fact.problem}`;
    case "experiment.declared":
      return `${fact.experimentId} declared ${fact.declaration.declared}: ${fact.declaration.summary}`;
    case "experiment.returned":
      return `${fact.experimentId} goes back to its implementer: ${fact.reason}`;
    case "review.recorded":
      return `${fact.experimentId} review of the ${fact.of}: ${fact.review.verdict}: ${fact.review.reason}`;
    case "evaluation.recorded":
      return `${fact.experimentId} evaluation: mechanism ${fact.mechanism}; bottleneck: ${fact.bottleneck}`;
    case "backlog.edited":
      return `backlog: ${fact.issue} ${fact.strategy}: ${fact.reason}`;
    case "note.recorded":
      return `${fact.topic}: ${fact.text}`;
  }
}

const step = (c: Campaign, jobId: string): string => jobId.replace(`${c.id}_`, "").replace("_", " ");

function result(r: JobResult): string {
  const o = r.outcome;
  switch (o.status) {
    case "built":
      return `ok, ${o.cached ? "from the cache" : `${o.seconds.toFixed(1)} s`}`;
    case "checked":
      return `${o.report.ok ? "passed" : "FAILED"}: ${o.report.positions} hidden positions, ${o.report.servedTokens} served tokens, ${o.seconds.toFixed(1)} s`;
    case "measured":
      return `${o.comparison.point.toFixed(3)}× [${o.comparison.lo.toFixed(3)}, ${o.comparison.hi.toFixed(3)}] over ${o.comparison.pairs} pairs (${o.challenger.value.toFixed(1)} against ${o.champion.value.toFixed(1)} ${o.challenger.metric.unit}), ${o.seconds.toFixed(1)} s`;
    case "baseline-ready":
      return `${o.engine} ${o.version} ready: strongest setting ${o.strongest}, ${o.seconds.toFixed(0)} s`;
    case "profiled":
      return `profiled by ${o.profile.source}: ${o.profile.regions
        .slice(0, 3)
        .map((r) => `${r.name} ${(100 * r.share).toFixed(0)} %`)
        .join(", ")}, ${o.seconds.toFixed(1)} s`;
    case "ran":
      return `${o.timedOut ? "ran into its limit" : `exit ${o.exitCode ?? "by a signal"}`}, ${o.seconds.toFixed(1)} s`;
    case "failed":
      return `failed (${o.failure.attribution}): ${o.failure.code}: ${o.failure.message.split("\n")[0] ?? ""}`;
  }
}
