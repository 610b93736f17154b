import type { ArtifactRef, CampaignFact, Git } from "@vibeserve/shared";
import { Declaration } from "@vibeserve/shared";
import { CandidateFilesError, type CandidateFiles } from "../checkpoint/candidate-files.ts";
import type { CampaignRepository } from "../checkpoint/repository.ts";
import { find, type Campaign } from "../campaign/campaign.machine.ts";
import { blocked, type EffectContext, type EffectHandlers } from "../campaign/effect-handlers.ts";
import type { Experiment } from "../campaign/experiment.machine.ts";
import { FINAL, type CallAt, type SessionRole } from "../campaign/session.ts";
import type { Catalog } from "../stack/catalog.ts";
import { admits, scopeOf } from "../stack/skill-scope.ts";
import { Said, type Block } from "./conversation.ts";
import { clipped } from "./prompt.ts";
import { evaluatorPrompt, implementerPrompt, judgePrompt } from "./first-prompt.ts";
import { begun, play, type PlayOf, type Talk } from "./replay.ts";
import type { Models } from "./models.ts";
import { Assessment, parseInput, RunInput, TOOL_SPECS, Verdict, type Idea } from "./tools.ts";
import { takeTurn } from "./turns.ts";
import { ToolProblem, Workspace } from "./workspace.ts";

export interface SessionDeps {
  models: Pick<Models, "turns" | "model" | "roles">;
  catalog: (campaign: Campaign, digest: string) => Promise<Catalog>;
  repository: (campaign: string) => Promise<Pick<CampaignRepository, "readTree" | "commitTree">>;
  artifact: (digest: string) => Promise<Uint8Array>;
}

/** Reasoning and a file of some hundred lines fit; a larger one can be written in pieces. */
const MAX_TOKENS: Readonly<Record<SessionRole, number>> = { implementer: 16_000, judge: 6_000, evaluator: 6_000 };
/** Parents' trees: most campaigns begin at the same seed, then each has its leader. One of the CPU stack has 170 kB. */
const KEPT_TREES = 64;
/** Conversations under way, at most 360 kB each: one that is not kept is played again from its beginning at each turn. */
const KEPT_TALKS = 128;
/** What was said last, until it is played. */
const KEPT_TURNS = 256;

/** The inner loop's effects: turns of models, the trees that their tools work on, and how conversations end. */
export function sessionHandlers(deps: SessionDeps): Pick<EffectHandlers, "turn" | "prepare" | "conclude"> {
  const trees = new Kept<Promise<CandidateFiles>>(KEPT_TREES);
  const talks = new Kept<Talk>(KEPT_TALKS);
  const turns = new Kept<readonly Block[]>(KEPT_TURNS);
  const tree = (c: Campaign, { commit, treeDigest }: Git): Promise<CandidateFiles> => {
    const known = trees.get(treeDigest);
    if (known) return known;
    const read = deps.repository(c.id).then((repository) => repository.readTree(commit));
    trees.set(treeDigest, read);
    read.catch(() => trees.delete(treeDigest));
    return read;
  };
  const blocksIn = (digest: string, bytes: Uint8Array): readonly Block[] => {
    const blocks = Said.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
    turns.set(digest, blocks);
    return blocks;
  };
  const said = async ({ digest }: ArtifactRef) => turns.get(digest) ?? blocksIn(digest, await deps.artifact(digest));

  /** The conversation, to be played on from where it was left, or from its beginning; never beyond the turn before turn `n`. */
  async function opened(context: EffectContext, experimentId: string, { role, draft, n }: Pick<CallAt, "role" | "draft" | "n">) {
    const campaign = context.current();
    const experiment = find(campaign, experimentId);
    if (!experiment) throw new Error(`no experiment ${experimentId}`);
    const catalog = await deps.catalog(campaign, context.stackDigest);
    const scope = scopeOf(campaign.target, campaign.device);
    const skill = (id: string): string | null => {
      const file = catalog.knowledge.get(id);
      const fits = file && (experiment.hypothesis.skills.includes(id) || admits(file.skill.appliesTo, scope));
      return fits ? `${file.skill.title}\n${file.text}` : null;
    };
    const name = `${campaign.id} ${experimentId} ${role} ${draft}`;
    const left = talks.get(name);
    const from = left && left.turns < n ? left : await beginning(campaign, experiment, role, catalog);
    return { of: { campaign, experiment, role, draft, from, skill, said } satisfies PlayOf, name };
  }

  async function beginning(c: Campaign, x: Experiment, role: SessionRole, catalog: Catalog): Promise<Talk> {
    const parentGit = find(c, x.hypothesis.parent)?.git;
    if (!parentGit) throw new Error(`${x.id}: its parent has no tree`);
    const parent = await tree(c, parentGit);
    const handedIn = lastTree(x);
    const workspace = new Workspace(role === "implementer" || !handedIn ? parent : await tree(c, handedIn), parent);
    return begun(firstPrompt(c, x, role, catalog, workspace), workspace);
  }

  /** The tree at a call, and how it is committed. */
  async function stopped(context: EffectContext, experimentId: string, call: CallAt) {
    const { of } = await opened(context, experimentId, call);
    const at = await play(of, call);
    const { hypothesis, id } = of.experiment;
    const commit = async (): Promise<Git> => {
      const parent = find(of.campaign, hypothesis.parent)?.git?.commit ?? null;
      const message = `${id} ${call.key}: ${hypothesis.claim}\n\nMechanism: ${hypothesis.mechanism}\n`;
      const files = at.workspace.files;
      const candidate = { experimentId: `${id}/${call.key}`, files, message, parent, at: of.experiment.proposedAt };
      try {
        return await (await deps.repository(of.campaign.id)).commitTree(candidate);
      } catch (error) {
        // Such as one without files.
        if (error instanceof CandidateFilesError) throw new ToolProblem(error.message);
        throw error;
      }
    };
    return { of, at, commit };
  }

  return {
    turn: async ({ id, experimentId, role, draft, n }, context) => {
      const { of, name } = await opened(context, experimentId, { role, draft, n });
      const { input: _, ...talk } = await play(of, null);
      talks.set(name, talk);
      const { by } = of.experiment;
      const model = deps.models.model(by, role);
      const request = {
        tree: talk.workspace.files,
        writes: role === "implementer",
        final: FINAL[role],
        model,
        maxTokens: MAX_TOKENS[role],
        system: deps.models.roles[role],
        messages: talk.messages,
        reply: { kind: "tools" as const, tools: TOOL_SPECS[role] },
      };
      const turnDeps = await deps.models.turns(of.campaign, by, context.current);
      const put = async (bytes: Uint8Array): Promise<ArtifactRef> => {
        const ref = await turnDeps.put(bytes);
        blocksIn(ref.digest, bytes);
        return ref;
      };
      const taken = await takeTurn({ ...turnDeps, put }, context, id, role, request, { experimentId, draft, n });
      if (taken.kind === "answered") return null;
      if (taken.kind === "unusable") return cameToNothing(experimentId, role, taken.reason);
      // Of a portfolio the others may go on.
      return of.campaign.target.agent === "portfolio"
        ? { type: "planner.stopped", by, reason: taken.reason }
        : { type: "search.ended", reason: taken.reason };
    },
    prepare: async ({ experimentId, call }, context) => {
      const { at, commit } = await stopped(context, experimentId, call);
      return orRefused(experimentId, call, async () => {
        const argv = call.tool === "run" ? parseInput(RunInput, at.input).argv : null;
        return { type: "call.prepared", experimentId, call: call.key, git: await commit(), argv, problem: null };
      });
    },
    conclude: async ({ experimentId, call }, context) => {
      const { of, at, commit } = await stopped(context, experimentId, call);
      return orRefused(experimentId, call, async () => {
        if (call.role === "judge") {
          const { bugs, ...review } = parseInput(Verdict, at.input);
          await file(of, context, "judge", bugs);
          const { draft, experiment } = of;
          return { type: "review.recorded", experimentId, draft, of: experiment.git ? "candidate" : "abandonment", review };
        }
        if (call.role === "evaluator") {
          const { ideas, ...words } = parseInput(Assessment, at.input);
          await file(of, context, "evaluator", ideas);
          return { type: "evaluation.recorded", experimentId, ...words };
        }
        const declaration = parseInput(Declaration, at.input);
        const ready = declaration.declared === "ready";
        if (ready && at.workspace.changed().length === 0) throw new ToolProblem("nothing is changed against the parent");
        const git = await commit().catch((error: unknown) => {
          if (ready || !(error instanceof ToolProblem)) throw error;
          // Whoever gives up may leave nothing behind.
          return null;
        });
        if (ready && git) refuseAgain(of.experiment, git);
        await context.append({ type: "call.prepared", experimentId, call: call.key, git, argv: null, problem: null });
        return { type: "experiment.declared", experimentId, call: call.key, declaration };
      });
    },
  };
}

/** No verdict on the idea: a model could not say what it was asked for. */
function cameToNothing(experimentId: string, role: SessionRole, why: string): CampaignFact {
  if (role === "evaluator")
    return { type: "evaluation.recorded", experimentId, bottleneck: "not evaluated", mechanism: "unclear", evidence: clipped(why, 1_900) };
  return { ...blocked(experimentId, `the ${role} gave no answer that can be used: ${clipped(why, 1_900)}`), strategy: "parked" };
}

function firstPrompt(c: Campaign, x: Experiment, role: SessionRole, catalog: Catalog, workspace: Workspace): string {
  if (role === "implementer") return implementerPrompt(c, x, catalog, workspace);
  if (role === "evaluator") return evaluatorPrompt(c, x, workspace);
  return judgePrompt(c, x, x.git ? "candidate" : "abandonment", workspace);
}

/** What was handed in, or where the idea was given up. */
const lastTree = (x: Experiment): Git | null => x.git ?? (x.declaration ? (x.calls[x.declaration.call]?.git ?? null) : null);

/** Or a veto, and a check on fresh positions, could be outvoted by asking again. */
function refuseAgain({ returned, calls }: Experiment, { treeDigest }: Git): void {
  if (returned.some(({ call }) => calls[call]?.git?.treeDigest === treeDigest))
    throw new ToolProblem("this very tree came back already: mend what it came back for, or say that you can't");
}

/** What a call came to; what the model got wrong is the call's answer. */
async function orRefused(experimentId: string, call: CallAt, make: () => Promise<CampaignFact>): Promise<CampaignFact> {
  try {
    return await make();
  } catch (error) {
    if (!(error instanceof ToolProblem)) throw error;
    const problem = error.message.slice(0, 2_000);
    return { type: "call.prepared", experimentId, call: call.key, git: null, argv: null, problem };
  }
}

/** Ideas of a judge or an evaluator go to the backlog, where the planner finds them. */
async function file(of: PlayOf, context: EffectContext, filedBy: "judge" | "evaluator", ideas: readonly Idea[]): Promise<void> {
  if (ideas.length === 0) return;
  const issues = ideas.map(({ title, mechanism, expectedRatio }, i) => ({
    id: `${filedBy}-${of.experiment.id}-${of.draft}-${i + 1}`,
    title,
    mechanism,
    skills: [],
    expected: expectedRatio,
    filedBy,
  }));
  await context.append({ type: "backlog.filed", issues });
}

/** What was used last, by name. */
class Kept<T> {
  readonly #most: number;
  readonly #known = new Map<string, T>();
  constructor(most: number) {
    this.#most = most;
  }
  get(name: string): T | undefined {
    const known = this.#known.get(name);
    if (known !== undefined) this.set(name, known);
    return known;
  }
  set(name: string, value: T): void {
    this.#known.delete(name);
    this.#known.set(name, value);
    for (const [oldest] of this.#known) if (this.#known.size > this.#most) this.#known.delete(oldest);
  }
  delete(name: string): void {
    this.#known.delete(name);
  }
}
