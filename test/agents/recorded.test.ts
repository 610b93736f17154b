import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sha256, type CampaignFact } from "@vibeserve/shared";
import { models } from "../../coordinator/src/agents/models.ts";
import { fold, pending, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import type { Effect } from "../../coordinator/src/campaign/effect.ts";
import { runEffect, type EffectContext, type EffectHandlers } from "../../coordinator/src/campaign/effect-handlers.ts";
import { searchHandlers, type SearchDeps } from "../../coordinator/src/campaign/search-handlers.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { loadSkills, type Catalog } from "../../coordinator/src/stack/catalog.ts";
import { recording, unpack } from "../fixtures/transcripts/recording.ts";
import { tempDir } from "../kit/temp-dir.ts";

const recorded = recording("cpu-chat");
const dir = tempDir("recorded");
afterAll(() => dir[Symbol.dispose]());

type Requested = Extract<CampaignFact, { type: "turn.requested" }>;

/** The first request of each turn, with the state in which it was made and its instant. */
function requests(): { fact: Requested; before: Campaign; at: number }[] {
  let c: Campaign | null = null;
  const found: { fact: Requested; before: Campaign; at: number }[] = [];
  for (const event of recorded.events) {
    if (event.fact.type === "turn.requested" && event.fact.turnId.endsWith(".1") && c)
      found.push({ fact: event.fact, before: c, at: event.at });
    c = fold(c, event);
  }
  return found;
}

/** The handlers as the coordinator has them, on what the recording holds: trees from its bundle, turns from its replies, no provider. */
async function handlers(now: () => number) {
  const { git, root } = unpacked;
  const artifacts = new Map<string, Uint8Array>();
  for (const reply of Object.values(recorded.replies))
    if ("content" in reply) {
      const bytes = Buffer.from(JSON.stringify(reply.content));
      artifacts.set(sha256(bytes), bytes);
    }
  const knowledge = await loadSkills(root);
  const catalog: Catalog = { stack: "cpu", files: new Map(), skills: new Map(), knowledge, digest: "" };
  const settings = { ...loadSettings({ data: join(dir.path, "data") }), root };
  const trees = new Map<string, Map<string, Uint8Array>>();
  const readTree = async (commit: string): Promise<Map<string, Uint8Array>> => {
    const known = trees.get(commit) ?? readAll(commit);
    trees.set(commit, known);
    return known;
  };
  const readAll = (commit: string): Map<string, Uint8Array> => {
    const run = (...args: string[]) => execFileSync("git", ["--git-dir", git, ...args], { maxBuffer: 64e6 });
    const paths = run("ls-tree", "-r", "--name-only", commit).toString().trim().split("\n");
    return new Map(paths.map((path) => [path, run("show", `${commit}:${path}`)]));
  };
  const deps = {
    now,
    catalog: async () => catalog,
    repository: async () => ({ readTree }),
    findings: () => [],
    lessons: () => [],
    artifact: async (digest: string) => {
      const bytes = artifacts.get(digest);
      if (!bytes) throw new Error(`the recording has no turn with digest ${digest}`);
      return bytes;
    },
    models: models({
      settings: { ...settings, anthropic: { ...settings.anthropic, apiKey: "none" } },
      now,
      put: async () => ({ digest: "", bytes: 0 }),
      committedUsd: () => 0,
      onError: () => undefined,
    }),
  };
  return searchHandlers(deps as unknown as SearchDeps);
}

let unpacked: ReturnType<typeof unpack>;
beforeAll(() => {
  unpacked = unpack(recorded, dir.path);
});

/** Runs the effect as far as its first request, and returns what the log would say of it. */
async function rendered(handlers: EffectHandlers, effect: Effect, before: Campaign): Promise<Requested> {
  const asked: Requested[] = [];
  const context: EffectContext = {
    campaign: before,
    current: () => before,
    stackDigest: "",
    signal: new AbortController().signal,
    requested: () => null,
    append: async (fact) => {
      if (fact.type === "turn.requested") asked.push(fact);
      throw new Error(`appended ${fact.type}`);
    },
    waits: () => undefined,
  };
  const failed: unknown = await runEffect(handlers, effect, context).catch((error: unknown) => error);
  const [first] = asked;
  if (!first) throw failed;
  return first;
}

describe("the recorded campaign", () => {
  it("holds a champion, a failed accuracy, a caught cheat, a parked and an abandoned idea", () => {
    const c = recorded.events.reduce<Campaign | null>(fold, null);
    expect(c?.ended?.outcome).toBe("proven");
    expect(c?.experiments.length).toBeGreaterThanOrEqual(6);
    expect(c?.champions.at(-1)?.repeat.lo).toBeGreaterThan(1);
    const returned = c?.experiments.flatMap((x) => x.returned.map((r) => r.reason)) ?? [];
    expect(returned.filter((r) => r.startsWith("vetoed: "))).toHaveLength(1);
    expect(returned.filter((r) => r.startsWith("accuracy: "))).toHaveLength(1);
    expect(c?.experiments.map((x) => x.settled?.strategy)).toEqual(expect.arrayContaining(["parked", "abandoned"]));
    expect(c?.experiments.every((x) => x.provenance === "model")).toBe(true);
  });

  it("has all four roles, and every reply was given to exactly the request that this code makes of the same log", async () => {
    const all = requests();
    expect(new Set(all.map(({ fact }) => fact.role))).toEqual(new Set(["planner", "implementer", "judge", "evaluator"]));
    const differing: string[] = [];
    let now = 0;
    const replayed = await handlers(() => now);
    for (const { fact, before, at } of all) {
      // A planner's second try at a shape has the first one in its prompt.
      const effect = pending(before).find((e) => fact.turnId.startsWith(`${e.id}.`));
      if (!effect || (effect.type === "plan" && fact.turnId !== `${effect.id}.1.1`)) {
        differing.push(`${fact.turnId}: no effect asks for it`);
        continue;
      }
      now = at;
      const again = await rendered(replayed, effect, before);
      if (again.promptDigest !== fact.promptDigest) differing.push(`${fact.turnId}: another request`);
    }
    expect(differing).toEqual([]);
    expect(all.length).toBeGreaterThan(10);
  }, 120_000);
});
