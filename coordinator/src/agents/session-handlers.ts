import type { ArtifactRef, CampaignFact, Git } from "@vibeserve/shared";
import { Declaration } from "@vibeserve/shared";
import { CandidateFilesError, type CandidateFiles } from "../checkpoint/candidate-files.ts";
import type { CampaignRepository } from "../checkpoint/repository.ts";
import { find, type Campaign } from "../campaign/campaign.machine.ts";
import type { EffectContext, EffectHandlers } from "../campaign/effect-handlers.ts";
import type { Experiment } from "../campaign/experiment.machine.ts";
import { FINAL, type CallAt, type SessionRole } from "../campaign/session.ts";
import type { Catalog } from "../stack/catalog.ts";
import { admits, scopeOf } from "../stack/skill-scope.ts";
import { Said, type Block } from "./conversation.ts";
import { evaluatorPrompt, implementerPrompt, judgePrompt } from "./first-prompt.ts";
import { play, type PlayOf } from "./replay.ts";
import type { Models } from "./models.ts";
import { Assessment, parseInput, RunInput, toolSpecs, Verdict, type Idea } from "./tools.ts";
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
/** Parents' trees and turns are read again at each turn. */
const KEPT_TREES = 8;
const KEPT_TURNS = 2_000;

/** The inner loop's effects: turns of models, the trees that their tools work on, and how conversations end. */
export function sessionHandlers(deps: SessionDeps): Pick<EffectHandlers, "turn" | "prepare" | "conclude"> {
  const trees = new Kept<CandidateFiles>(KEPT_TREES);
  const turns = new Kept<readonly Block[]>(KEPT_TURNS);
  const tree = async (c: Campaign, commit: string) => trees.get(commit, async () => (await deps.repository(c.id)).readTree(commit));
  const said = async ({ digest }: ArtifactRef) =>
    turns.get(digest, async () => Said.parse(JSON.parse(Buffer.from(await deps.artifact(digest)).toString("utf8"))));

  async function opened(context: EffectContext, experimentId: string, role: SessionRole, draft: number): Promise<PlayOf> {
    const campaign = context.current();
    const experiment = find(campaign, experimentId);
    if (!experiment) throw new Error(`no experiment ${experimentId}`);
    const catalog = await deps.catalog(campaign, context.stackDigest);
    const parentGit = find(campaign, experiment.hypothesis.parent)?.git;
    if (!parentGit) throw new Error(`${experimentId}: its parent has no tree`);
    const parent = await tree(campaign, parentGit.commit);
    const handedIn = lastTree(experiment);
    const files = role === "implementer" || !handedIn ? parent : await tree(campaign, handedIn.commit);
    const workspace = new Workspace(files, parent);
    const scope = scopeOf(campaign.target, campaign.device);
    const skill = (id: string): string | null => {
      const file = catalog.knowledge.get(id);
      const fits = file && (experiment.hypothesis.skills.includes(id) || admits(file.skill.appliesTo, scope));
      return fits ? `${file.skill.title}\n${file.text}` : null;
    };
    return {
      campaign,
      experiment,
      role,
      draft,
      first: firstPrompt(campaign, experiment, role, catalog, workspace),
      scope: { workspace, skill },
      said,
    };
  }

  async function stopped(
    context: EffectContext,
    experimentId: string,
    call: CallAt,
  ): Promise<{ of: PlayOf; input: unknown; commit: () => Promise<Git> }> {
    const of = await opened(context, experimentId, call.role, call.draft);
    const { input } = await play(of, call);
    const { hypothesis, id } = of.experiment;
    const commit = async () => {
      const parent = find(of.campaign, hypothesis.parent)?.git?.commit ?? null;
      const message = `${id} ${call.key}: ${hypothesis.claim}\n\nMechanism: ${hypothesis.mechanism}\n`;
      const files = of.scope.workspace.files;
      const candidate = { experimentId: `${id}/${call.key}`, files, message, parent, at: of.experiment.proposedAt };
      try {
        return await (await deps.repository(of.campaign.id)).commitTree(candidate);
      } catch (error) {
        // Such as one without files.
        if (error instanceof CandidateFilesError) throw new ToolProblem(error.message);
        throw error;
      }
    };
    return { of, input, commit };
  }

  return {
    turn: async ({ id, experimentId, role, draft, n }, context) => {
      const of = await opened(context, experimentId, role, draft);
      const { messages } = await play(of, null);
      const { by } = of.experiment;
      const model = deps.models.model(by, role);
      const request = {
        tree: of.scope.workspace.files,
        writes: role === "implementer",
        final: FINAL[role],
        model,
        maxTokens: MAX_TOKENS[role],
        system: deps.models.roles[role],
        messages,
        reply: { kind: "tools" as const, tools: toolSpecs(role) },
      };
      const taken = await takeTurn(await deps.models.turns(of.campaign, by, context.current), context, id, role, request, {
        experimentId,
        draft,
        n,
      });
      if (taken.kind === "answered") return null;
      // Of a portfolio the others may go on.
      return of.campaign.target.agent === "portfolio"
        ? { type: "planner.stopped", by, reason: taken.reason }
        : { type: "search.ended", reason: taken.reason };
    },
    prepare: async ({ experimentId, call }, context) => {
      const { input, commit } = await stopped(context, experimentId, call);
      return prepared(experimentId, call, async () => {
        const argv = call.tool === "run" ? parseInput(RunInput, input).argv : null;
        return { git: await commit(), argv };
      });
    },
    conclude: async ({ experimentId, call }, context) => {
      const { of, input, commit } = await stopped(context, experimentId, call);
      try {
        if (call.role === "judge") return await judged(of, context, parseInput(Verdict, input));
        if (call.role === "evaluator") return await assessed(of, context, parseInput(Assessment, input));
        const declaration = parseInput(Declaration, input);
        if (declaration.declared === "ready" && of.scope.workspace.changed().length === 0)
          throw new ToolProblem("nothing is changed against the parent");
        const ready = declaration.declared === "ready";
        const git = await commit().catch((error: unknown) => {
          if (ready || !(error instanceof ToolProblem)) throw error;
          // Whoever gives up may leave nothing behind.
          return null;
        });
        if (ready && git) refuseAgain(of.experiment, git);
        await context.append({ type: "call.prepared", experimentId, call: call.key, git, argv: null, problem: null });
        return { type: "experiment.declared", experimentId, call: call.key, declaration };
      } catch (error) {
        if (error instanceof ToolProblem) return refused(experimentId, call, error.message);
        throw error;
      }
    },
  };
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

async function prepared(
  experimentId: string,
  call: CallAt,
  make: () => Promise<{ git: Git; argv: string[] | null }>,
): Promise<CampaignFact> {
  try {
    return { type: "call.prepared", experimentId, call: call.key, ...(await make()), problem: null };
  } catch (error) {
    if (error instanceof ToolProblem) return refused(experimentId, call, error.message);
    throw error;
  }
}

const refused = (experimentId: string, call: CallAt, problem: string): CampaignFact => ({
  type: "call.prepared",
  experimentId,
  call: call.key,
  git: null,
  argv: null,
  problem: problem.slice(0, 2_000),
});

async function judged(of: PlayOf, context: EffectContext, { bugs, ...review }: ReturnType<typeof Verdict.parse>): Promise<CampaignFact> {
  await file(of, context, "judge", bugs);
  return {
    type: "review.recorded",
    experimentId: of.experiment.id,
    draft: of.draft,
    of: of.experiment.git ? "candidate" : "abandonment",
    review,
  };
}

async function assessed(
  of: PlayOf,
  context: EffectContext,
  { ideas, ...words }: ReturnType<typeof Assessment.parse>,
): Promise<CampaignFact> {
  await file(of, context, "evaluator", ideas);
  return { type: "evaluation.recorded", experimentId: of.experiment.id, ...words };
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

/** The newest of what was read, by name. */
class Kept<T> {
  readonly #most: number;
  readonly #known = new Map<string, Promise<T>>();
  constructor(most: number) {
    this.#most = most;
  }
  async get(name: string, read: () => Promise<T>): Promise<T> {
    const known = this.#known.get(name) ?? read();
    this.#known.delete(name);
    this.#known.set(name, known);
    known.catch(() => this.#known.delete(name));
    for (const [oldest] of this.#known) if (this.#known.size > this.#most) this.#known.delete(oldest);
    return known;
  }
}
