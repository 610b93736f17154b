import {
  nameOf,
  type BacklogIssue,
  type Bindings,
  type ChampionRef,
  type Device,
  type Hypothesis,
  type Metric,
  type Skill,
} from "@vibeserve/shared";
import type { Catalog } from "../stack/catalog.ts";
import type { Port } from "../findings/elsewhere.ts";
import { bindingPath } from "../stack/catalog.ts";
import { applySkill, boundSkills } from "../stack/compose.ts";
import { displaced, expectedLogGain, learn, UNMEASURED_SD, type Gains, type Observation } from "./estimate.ts";

/** An earlier try of a skill, by itself, in this campaign. */
export interface Try {
  skill: string;
  outcome: "proven" | "disproven" | "inconclusive" | "implementation_failed" | "blocked";
  parent: string;
}

export interface PlanInput {
  catalog: Catalog;
  device: Device;
  metric: Metric;
  leader: string;
  bindings: Bindings;
  tries: readonly Try[];
  observations: readonly Observation[];
  /** Search time left, seconds: the budget less what crowning will need. */
  remainingS: number;
  /** What one experiment took so far, seconds (a guess before the first). */
  experimentS: number;
  experimentsLeft: number;
  /** Nothing has been tried in this campaign. */
  first: boolean;
  /** Champions of other campaigns that may be tried on the seed, the most promising first. */
  ports: readonly Port[];
}

export interface Weighed {
  skill: string;
  /** Expected challenger / leader. */
  estimate: number;
  why: string;
}

export type Plan = { kind: "propose"; hypothesis: Hypothesis; weighed: Weighed[]; portOf?: ChampionRef } | { kind: "end"; reason: string };

/** An idea must promise this much in the optimistic case (one standard deviation) to be worth an experiment's device time. */
const WORTH = 1.01;
/** Options that a proposal records, best first. */
const OPTIONS = 40;
/** A skill is tried at most this often: again only on top of another leader. Tries that were blocked say nothing of the skill and are counted apart. */
const MAX_TRIES = 2;

/**
 * The playbook's planner: of the skills whose preconditions hold, the one with the largest expected gain over the leader. After a failed
 * implementation another variant on the same seam goes first; what was blocked goes last, and once more. Pure: same input, same plan.
 */
export function plan(input: PlanInput): Plan {
  const { catalog, bindings, tries } = input;
  const ended = spent(input);
  if (ended !== null) return { kind: "end", reason: ended };
  const gains = learn(catalog.skills, input.observations);
  if (input.first) {
    const { known, bindings: bound } = knownGood(input, gains);
    if (known.length > 1) return together(known, bound, input);
  }
  const port = ported(input);
  if (port) return port;
  const last = tries.at(-1);
  const failedSeams = last?.outcome === "implementation_failed" ? (catalog.skills.get(last.skill)?.skill.seams ?? []) : [];
  const options: (Weighed & { item: Skill; optimistic: number; variant: boolean })[] = [];
  for (const { skill } of catalog.skills.values()) {
    if (illegal(skill, input) !== null) continue;
    const logGain = expectedLogGain(gains, catalog, bindings, skill);
    const optimistic = Math.exp(logGain + (gains.measured(skill.id) ? 0 : UNMEASURED_SD));
    const variant = skill.seams.some((seam) => failedSeams.includes(seam)) && skill.id !== last?.skill;
    const over = displaced(catalog, bindings, skill);
    const far = gains.measuredElsewhere(skill.id) ? ", measured elsewhere" : "";
    const basis = gains.measured(skill.id) ? "measured before" : `stated ${skill.expectedGain.ratio}×${far}`;
    const why = `${basis}${over.length ? `, in place of ${over.join(", ")}` : ""}${variant ? `, another variant after ${last?.skill ?? ""} failed` : ""}`;
    options.push({ skill: skill.id, estimate: Math.exp(logGain), why, item: skill, optimistic, variant });
  }
  const blocked = (o: Weighed): number => tries.filter((t) => t.skill === o.skill && t.outcome === "blocked").length;
  options.sort(
    (a, b) => Number(b.variant) - Number(a.variant) || blocked(a) - blocked(b) || b.estimate - a.estimate || (a.skill < b.skill ? -1 : 1),
  );
  const best = options.find((o) => o.optimistic >= WORTH);
  if (!best)
    return {
      kind: "end",
      reason: options.length
        ? `nothing left can pay: the best of ${options.length} remaining skills, ${options[0]?.skill ?? ""}, is expected at ${(options[0]?.estimate ?? 0).toFixed(2)}×`
        : "every skill whose preconditions hold has been tried",
    };
  const weighed = options.slice(0, OPTIONS).map(({ skill, estimate, why }) => ({ skill, estimate, why }));
  return { kind: "propose", hypothesis: hypothesise(best.item, best.estimate, input), weighed };
}

/** Why no experiment may begin any more, whoever plans; null: one may. */
export function spent(input: Pick<PlanInput, "experimentsLeft" | "remainingS" | "experimentS">): string | null {
  if (input.experimentsLeft <= 0) return "the budget of experiments is spent";
  if (input.remainingS >= input.experimentS) return null;
  return `${Math.round(input.remainingS)} s of search time are left, an experiment takes about ${Math.round(input.experimentS)} s`;
}

/** The skills that earlier campaigns proved, in the order in which they would be bound (each time the legal one that gained most), and what is bound then. */
function knownGood(input: PlanInput, gains: Gains): { known: Weighed[]; bindings: Bindings } {
  const known: Weighed[] = [];
  for (let bindings = input.bindings; ;) {
    const options = [...input.catalog.skills.values()]
      .filter(({ skill }) => gains.proved(skill.id) && illegal(skill, { ...input, bindings }) === null)
      .map(({ skill }) => ({
        skill: skill.id,
        estimate: Math.exp(expectedLogGain(gains, input.catalog, bindings, skill)),
        why: "measured before",
      }))
      .sort((a, b) => b.estimate - a.estimate || (a.skill < b.skill ? -1 : 1));
    const best = options[0];
    // A skill that takes another's place must gain over it, so this ends.
    if (!best || best.estimate < WORTH) return { known, bindings };
    known.push(best);
    bindings = applySkill(input.catalog, bindings, best.skill);
  }
}

/** What was learnt before is one hypothesis, not many: if it holds, the search goes on from there; if not, each skill is tried by itself. */
function together(known: Weighed[], bindings: Bindings, input: PlanInput): Plan {
  const bound = boundSkills(input.catalog, bindings);
  // Without those whose place another took.
  const skills = known.map((k) => k.skill).filter((id) => bound.includes(id));
  const estimate = known.reduce((product, k) => product * k.estimate, 1);
  const one = input.catalog.skills.get(skills[0] ?? "")?.skill;
  if (!one) throw new Error("no skill to combine");
  const hypothesis = hypothesise(one, estimate, input);
  return {
    kind: "propose",
    weighed: known,
    hypothesis: {
      ...hypothesis,
      claim: `The ${skills.length} skills that earlier campaigns proved on this ISA, together on top of ${input.leader}, change ${input.metric.name} by ${estimate.toFixed(2)}×`,
      mechanism: `Each gained by itself before: ${known.map((k) => `${k.skill} ${k.estimate.toFixed(2)}×`).join(", ")}`,
      skills,
    },
  };
}

export const issueId = (skill: string): string => `playbook-${skill}`;

/** What the playbook files at the start: every skill that this device could use at all, by what it is expected to gain by itself. */
export function ideas(input: PlanInput): BacklogIssue[] {
  const gains = learn(input.catalog.skills, input.observations);
  return [...input.catalog.skills.values()]
    .filter(({ skill }) => unfit(skill, input.device) === null)
    .map(({ skill }): BacklogIssue => {
      const expected = Math.exp(expectedLogGain(gains, input.catalog, input.bindings, skill));
      return { id: issueId(skill.id), title: skill.title, mechanism: skill.summary, skills: [skill.id], expected, filedBy: "playbook" };
    })
    .sort((a, b) => b.expected - a.expected || (a.id < b.id ? -1 : 1));
}

/** Why this device can never use a skill; null if it can. */
function unfit(skill: Skill, device: Device): string | null {
  if (bindingPath(skill) === null) return "knowledge only: no binding for the playbook";
  const bits = new Set(device.isaBits);
  const missing = skill.requires.isa.find((alternatives) => !alternatives.split("|").some((bit) => bits.has(bit)));
  if (missing !== undefined) return `the device lacks ${missing}`;
  return device.cores < skill.requires.cores ? `needs ${skill.requires.cores} cores, the device has ${device.cores}` : null;
}

/** The first champion of elsewhere of which this device can use at least two skills, as one hypothesis on the seed; null: there is none. */
function ported(input: PlanInput): Plan | null {
  const options = input.ports.flatMap((port) => {
    let { bindings } = input;
    const bound = new Set<string>();
    const wanted = withReplaced(input.catalog, port.skills);
    // A skill that needs another comes after it, so several rounds may be needed.
    for (let before = -1; before < bound.size;) {
      before = bound.size;
      for (const id of wanted) {
        const skill = input.catalog.skills.get(id)?.skill;
        if (bound.has(id) || !skill || illegal(skill, { ...input, bindings }) !== null) continue;
        bindings = applySkill(input.catalog, bindings, id);
        bound.add(id);
      }
    }
    const estimate = Math.exp(port.logGain * port.similarity);
    const skills = boundSkills(input.catalog, bindings);
    return skills.length > 1 && estimate >= WORTH ? [{ port, estimate, skills }] : [];
  });
  const [best] = options;
  const one = best && input.catalog.skills.get(best.skills[0] ?? "")?.skill;
  if (!best || !one) return null;
  const { port, estimate, skills } = best;
  const dropped = port.skills.filter((id) => !skills.includes(id));
  return {
    kind: "propose",
    portOf: port.of,
    weighed: options.map((o) => ({
      skill: nameOf(o.port.of),
      estimate: o.estimate,
      why: `champion of ${o.port.where}, similarity ${o.port.similarity.toFixed(2)}`,
    })),
    hypothesis: {
      ...hypothesise(one, estimate, input),
      claim: `The champion ${nameOf(port.of)} (${port.where}), ported to this device on top of ${input.leader}, changes ${input.metric.name} by ${estimate.toFixed(2)}×`,
      mechanism: `It gained ${Math.exp(port.logGain).toFixed(2)}× there; similarity of scope ${port.similarity.toFixed(2)}${dropped.length > 0 ? `; not for this device: ${dropped.join(", ")}` : ""}`,
      skills,
    },
  };
}

/** Before each of a champion's skills those that it builds on and took the place of: a champion does not name them any more. */
function withReplaced({ skills }: Catalog, ids: readonly string[]): string[] {
  return [...new Set(ids.flatMap((id) => [...(skills.get(id)?.skill.requires.skills ?? []), id]))];
}

/** Why a skill may not be tried now; null if it may. */
export function illegal(skill: Skill, input: PlanInput): string | null {
  const { bindings, catalog, tries, leader } = input;
  const never = unfit(skill, input.device);
  if (never !== null) return never;
  if (Object.values(bindings).includes(bindingPath(skill) ?? "")) return "already bound";
  const bound = boundSkills(catalog, bindings);
  const absent = skill.requires.skills.find((id) => !bound.includes(id));
  if (absent !== undefined) return `needs ${absent} in the parent`;
  const gone = new Set(displaced(catalog, bindings, skill));
  const conflict = skill.conflicts.find((id) => bound.includes(id) && !gone.has(id));
  if (conflict !== undefined) return `conflicts with ${conflict}`;
  const needed = [...gone].find((id) => bound.some((b) => !gone.has(b) && catalog.skills.get(b)?.skill.requires.skills.includes(id)));
  if (needed !== undefined) return `would take away ${needed}, which another bound skill needs`;
  const all = tries.filter((t) => t.skill === skill.id);
  const mine = all.filter((t) => t.outcome !== "blocked");
  if (mine.some((t) => t.parent === leader)) return "already tried on this parent";
  if (mine.length >= MAX_TRIES) return `already tried ${mine.length} times`;
  if (all.length - mine.length >= MAX_TRIES) return `blocked ${all.length - mine.length} times, for no fault of its own`;
  return null;
}

/** Of every hypothesis, whoever plans. */
export const INVARIANTS = ["served tokens follow the float32 reference within the gates", "the served features stay the same"];
export const PASS_CRITERIA = ["it builds", "the screening check passes", "the interval of the paired ratio lies above 1"];

/** The hypothesis that binding one skill on top of the leader changes the metric by `estimate`. */
export function hypothesise(skill: Skill, estimate: number, input: Pick<PlanInput, "metric" | "leader">): Hypothesis {
  const { metric } = input;
  return {
    claim: `${skill.title} on top of ${input.leader} changes ${metric.name} by ${estimate.toFixed(2)}×`,
    mechanism: skill.summary,
    expected: { metric: metric.name, ratio: estimate },
    activation: skill.activation,
    falsification: "the 90 % interval of the paired ratio against the parent does not lie above 1",
    invariants: INVARIANTS,
    parent: input.leader,
    skills: [skill.id],
    passCriteria: PASS_CRITERIA,
  };
}
