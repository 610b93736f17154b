import type { Outcome } from "@vibeserve/shared";
import { find, SEED, type Campaign } from "../campaign/campaign.machine.ts";
import { jobOutcome } from "../campaign/job-effect.ts";
import { stepName, type Experiment } from "../campaign/experiment.machine.ts";
import type { Catalog } from "../stack/catalog.ts";
import { admits, indexLine, scopeOf } from "../stack/skill-scope.ts";
import { jobAnswer, profileText } from "./job-answer.ts";
import { clipped, fenced, fitting, plain } from "./prompt.ts";
import type { Workspace } from "./workspace.ts";

/** 8,000 tokens at three bytes each, less 11,000 bytes for the role with its contract and the tools: the implementer's first prompt. */
const IMPLEMENTER_BYTES = 13_000;
/** Of a review's diff; the rest is there for the asking. */
const DIFF_CHARS = 40_000;

/**
 * What a conversation begins with. Everything in it was settled when the experiment, or the hand-in, began, so it is the same text at each turn: that is what
 * makes a provider's cache hold, and a restart go on.
 */
export function implementerPrompt(c: Campaign, x: Experiment, catalog: Catalog, workspace: Workspace): string {
  const scope = scopeOf(c.target, c.device);
  const wanted = new Set(x.hypothesis.skills);
  const skills = [...catalog.knowledge.values()]
    .filter(({ skill }) => wanted.has(skill.id) || admits(skill.appliesTo, scope))
    .sort((a, b) => Number(wanted.has(b.skill.id)) - Number(wanted.has(a.skill.id)));
  const index = skills.map((s) => `${wanted.has(s.skill.id) ? "* " : "  "}${clipped(indexLine(s), 160)}`);
  const head = [
    situation(c),
    hypothesis(x),
    `The tree is that of ${x.hypothesis.parent}: ${boundIn(find(c, x.hypothesis.parent))}.`,
    fenced("tree", workspace.list("")),
    earlier(c, x),
  ].join("\n\n");
  const room = IMPLEMENTER_BYTES - Buffer.byteLength(head);
  return `${head}\n\nSkills that fit this target (* named by the hypothesis):\n${lines(index, room)}`;
}

/** of: the hand-in, or the claim that the idea can't work. */
export function judgePrompt(c: Campaign, x: Experiment, of: "candidate" | "abandonment", workspace: Workspace): string {
  const said = x.declaration?.declaration;
  const words = said
    ? fenced(
        "the implementer's words",
        `${said.declared}: ${said.summary}\nevidence: ${said.evidence.join("; ")}\nmechanism: ${said.mechanism}`,
      )
    : "";
  if (of === "abandonment")
    return [
      situation(c),
      hypothesis(x),
      "Its implementer gave it up as unsuitable. Does the stated mechanism show that the idea can't work on this target? The tree is what was tried last.",
      words,
      fenced("diff against the parent", workspace.diff(null, DIFF_CHARS)),
    ].join("\n\n");
  const check = outcomeOf(c, x, "check");
  return [
    situation(c),
    hypothesis(x),
    words,
    `The mechanical check on hidden positions: ${check ? jobAnswer(check).text : "not there"}`,
    fenced("diff against the parent", workspace.diff(null, DIFF_CHARS)),
    `Files that changed: ${names(workspace)}.`,
  ].join("\n\n");
}

export function evaluatorPrompt(c: Campaign, x: Experiment, workspace: Workspace): string {
  const [screen, profile] = [outcomeOf(c, x, "screen"), outcomeOf(c, x, "profile")];
  return [
    situation(c),
    hypothesis(x),
    `Measured beside its parent by the framework: ${screen ? jobAnswer(screen).text : "not there"}`,
    profile?.status === "profiled"
      ? `The candidate's profile: ${profileText(profile)}`
      : "There is no profile: the device has no profiler, or it failed.",
    `Files that changed: ${names(workspace)}.`,
    fenced("diff against the parent", workspace.diff(null, DIFF_CHARS / 2)),
    earlier(c, x),
  ].join("\n\n");
}

/** Never what may change while the experiment runs, such as time or money left. */
function situation(c: Campaign): string {
  const { target, device } = c;
  return [
    `Target ${target.name}: model ${target.model.name}; objective ${target.objective.name} (${target.objective.unit}), ${target.objective.direction}; accuracy class ${target.accuracy.class}.`,
    `Device: ${device?.name ?? "?"}, ${device?.cores ?? "?"} cores, ${device?.isa ?? "?"}: ${(device?.isaBits ?? []).join(" ")}.`,
    `Workload: ${JSON.stringify(target.workload)}`,
  ].join("\n");
}

function hypothesis({ id, hypothesis: h }: Experiment): string {
  const text = [
    `claim: ${h.claim}`,
    `mechanism: ${h.mechanism}`,
    `expected: ${h.expected.ratio.toFixed(2)}x ${h.expected.metric} over ${h.parent}`,
    `activation evidence: ${h.activation}`,
    `falsified if: ${h.falsification}`,
    `invariants: ${h.invariants.join("; ")}`,
    `pass criteria: ${h.passCriteria.join("; ")}`,
  ].join("\n");
  return `Experiment ${id}.\n${fenced("hypothesis", text)}`;
}

/** What an experiment's tree is made of, in words. */
export function boundIn(x: Experiment | undefined): string {
  const seams = Object.entries(x?.bindings ?? {}).map(([seam, path]) => `${seam} = ${path}`);
  return `${seams.join(", ")}${x?.provenance === "model" ? ", with changes by models on top" : ""}`;
}

/** What was settled before this experiment was proposed: the newest eight. */
function earlier(c: Campaign, x: Experiment): string {
  const before = c.experiments.filter((e) => e.settled && e.settledAt <= x.proposedAt && e.id !== SEED).slice(-8);
  const text = before.map((e) =>
    clipped(`${e.id} on ${e.hypothesis.parent}: ${e.hypothesis.claim} => ${e.settled?.outcome ?? ""}: ${e.settled?.reason ?? ""}`, 400),
  );
  return fenced("earlier experiments", text.join("\n") || "none yet");
}

function outcomeOf(c: Campaign, x: Experiment, step: "check" | "screen" | "profile"): Outcome | null {
  return jobOutcome(c, x.id, stepName(x, step));
}

/** The first that fit, and how many did not. */
function lines(all: readonly string[], bytes: number): string {
  const kept = fitting(all, bytes);
  return [...kept, ...(kept.length < all.length ? [`(and ${all.length - kept.length} more)`] : [])].map(plainEnd).join("\n");
}

const plainEnd = (line: string): string => `${line.startsWith("  ") ? "  " : ""}${plain(line)}`;

/** A path with spaces in it could be a sentence. */
const names = (workspace: Workspace): string =>
  workspace
    .changed()
    .map((path) => (path.includes(" ") ? JSON.stringify(path) : path))
    .join(", ") || "none";
