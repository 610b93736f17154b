import { join } from "node:path";
import type { ArtifactRef, CampaignEvent } from "@vibeserve/shared";
import { anthropic } from "../../coordinator/src/agents/anthropic.ts";
import { planWithModel } from "../../coordinator/src/agents/planner.ts";
import { priceFile } from "../../coordinator/src/agents/prices.ts";
import type { Provider } from "../../coordinator/src/agents/provider.ts";
import { loadRoles } from "../../coordinator/src/agents/roles.ts";
import { sessionHandlers } from "../../coordinator/src/agents/session-handlers.ts";
import type { TurnDeps } from "../../coordinator/src/agents/turns.ts";
import { row, type Row } from "../../coordinator/src/benchmarks/bench-report.ts";
import { fold, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import type { EffectContext } from "../../coordinator/src/campaign/effect-handlers.ts";
import { draft, planNext } from "../../coordinator/src/campaign/planning.ts";
import { loadCatalog, type Catalog } from "../../coordinator/src/stack/catalog.ts";
import { World } from "../campaign/world.ts";
import { textOf, type Asked } from "../kit/messages-server.ts";
import { decision, submit } from "../kit/scripted-model.ts";
import { ROOT, startModel } from "./model.ts";
import { benchTarget } from "./stand.ts";
import { promptBytes } from "./turns.ts";

const [EXPERIMENTS, FINDINGS] = [200, 60];
const MODEL = "claude-opus-5-5";
/** Longer than what is kept of any sentence. */
const LONG = "a sentence that a model wrote at some length, as they do ".repeat(8);

/** A planner's and a late implementer's first prompts, made by the product's code from a long campaign's state and sent by its client: what arrived is measured. */
export async function measurePrompts(): Promise<Row[]> {
  const catalog = await loadCatalog(ROOT, "stacks/cpu");
  const c = longCampaign(catalog);
  await using model = await startModel(({ turn }) => (turn.role === "planner" ? decision({}) : { blocks: [submit()] }), { keep: true });
  const provider = anthropic({ apiKey: "sk-bench", baseUrl: model.server.url });
  await plan(c, catalog, provider);
  await implement(c, catalog, provider);
  const [planner, implementer] = model.server.asked;
  if (!planner || !implementer) throw new Error("a prompt was not sent");
  const { output_config: schema, ...rest } = planner.body;
  const tokens = (bytes: number) => Math.ceil(bytes / 3);
  const what = `planner's prompt at ${EXPERIMENTS} experiments, ${FINDINGS} findings`;
  return [
    row(`${what}: system and message`, tokens(promptBytes({ ...planner, body: rest })), "tokens", "<= 6000"),
    row(`${what}: schema of the answer`, tokens(Buffer.byteLength(JSON.stringify(schema))), "tokens", ""),
    row(`${what}: the request as sent`, tokens(Number(planner.headers["content-length"])), "tokens", ""),
    row(`implementer's first prompt, experiment ${EXPERIMENTS + 1}`, tokens(promptBytes(implementer)), "tokens", "<= 8000"),
    ...shares(implementer),
  ];
}

const shares = (first: Asked): Row[] => [
  row("of it: tools", Math.ceil(Buffer.byteLength(JSON.stringify(first.body.tools)) / 3), "tokens", ""),
  row("of it: message", Math.ceil(Buffer.byteLength(textOf(first.body.messages[0])) / 3), "tokens", ""),
];

/** 200 settled experiments by a model, one more to be carried out, as many ideas, on the shipped target, stack and skills; every text is longer than it may be. */
function longCampaign(catalog: Catalog): Campaign {
  const world = new World([{ id: "q4", seam: "linear", stated: 9, truth: 10 }], { target: benchTarget() });
  const one = world.run().experiments[0];
  const { device } = world.state;
  if (!one || !device) throw new Error("the simulated campaign has no experiment");
  const isaBits = [
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512dq",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_tile",
  ];
  const hypothesis = {
    ...one.hypothesis,
    ...{ claim: LONG.slice(0, 400), mechanism: LONG.slice(0, 400), activation: LONG.slice(0, 400), falsification: LONG.slice(0, 400) },
    ...{ parent: "seed", skills: [...catalog.knowledge.keys()].slice(0, 8), invariants: Array<string>(4).fill(LONG.slice(0, 200)) },
  };
  const settled = { outcome: "inconclusive" as const, reason: LONG, ratio: null, checkpoint: "discard" as const };
  const experiments = Array.from({ length: EXPERIMENTS }, (_, i) => ({
    ...{ ...one, id: `e${i + 1}`, hypothesis, implemented: true, settled, settledAt: 1_000, proposedAt: 900 },
  }));
  const backlog = experiments.map(({ id }) => ({
    ...{ id: `planner-${id}`, title: LONG.slice(0, 120), mechanism: LONG, skills: [], expected: 1.1, reason: "", experiments: [] },
    ...{ filedBy: "planner" as const, strategy: "available" as const },
  }));
  const playbook = { id: "playbook-q4", title: "q4", mechanism: "-", skills: ["q4"], expected: 9, reason: "", experiments: [] };
  return {
    ...world.state,
    ...{ device: { ...device, isaBits }, leaders: ["seed"], champions: [], searchEnded: null, ended: null, experiments },
    backlog: [{ ...playbook, filedBy: "playbook" as const, strategy: "done" as const }, ...backlog],
  };
}

async function plan(c: Campaign, catalog: Catalog, provider: Provider): Promise<void> {
  const findings = Array.from({ length: FINDINGS }, (_, i) => ({ skill: `skill-${i}`, logGain: i / 100, over: [], proved: i > 0 }));
  const proposed = planNext({ ...c, experiments: [] }, catalog, [], c.lastAt);
  const options = proposed.type === "experiment.proposed" ? proposed.weighed : [];
  if (options.length === 0) throw new Error(`the shipped stack has no option: ${proposed.type}`);
  const lessons = Array.from({ length: 30 }, (_, i) => `abandoned for t on m: idea ${i} ${LONG}`);
  const deps = { ...turnDeps(provider), model: MODEL, role: loadRoles(ROOT).planner };
  await planWithModel(deps, `plan:1.${EXPERIMENTS}`, contextOf(c), { catalog, options, findings, lessons });
}

async function implement(c: Campaign, catalog: Catalog, provider: Provider): Promise<void> {
  const [last] = c.experiments.slice(-1);
  if (!last) throw new Error("no experiment");
  const id = `e${EXPERIMENTS + 1}`;
  const next = { ...last, id, settled: null, settledAt: 0, proposedAt: 2_000 };
  const { files } = draft(c, catalog, "seed", null);
  const handlers = sessionHandlers({
    models: { turns: async () => turnDeps(provider), model: () => MODEL, roles: loadRoles(ROOT) },
    catalog: async () => catalog,
    repository: async () => ({ readTree: async () => new Map(files), commitTree: () => Promise.reject(new Error("nothing is committed")) }),
    artifact: () => Promise.reject(new Error("nothing was said")),
  });
  const context = contextOf({ ...c, experiments: [...c.experiments, next] });
  await handlers.turn({ type: "turn", id: `implementer:${id}.0.1`, experimentId: id, role: "implementer", draft: 0, n: 1 }, context);
}

const turnDeps = (provider: Provider): TurnDeps => ({
  provider,
  prices: priceFile([join(ROOT, "coordinator/prices.yaml")])(),
  pausesMs: [0],
  over: () => null,
  fleetCap: () => null,
  put: async (bytes): Promise<ArtifactRef> => ({ digest: "0".repeat(64), bytes: bytes.length }),
});

/** A campaign without a log. */
function contextOf(campaign: Campaign): EffectContext {
  let state = campaign;
  return {
    campaign,
    current: () => state,
    stackDigest: "",
    signal: new AbortController().signal,
    requested: () => null,
    append: async (fact) => {
      const event: CampaignEvent = { v: 1, kind: "event", campaign: state.id, seq: state.seq + 1, at: state.lastAt, prev: "", fact };
      return (state = fold(state, event));
    },
    waits: () => undefined,
  };
}
