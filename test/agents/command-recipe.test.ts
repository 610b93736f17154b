import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { findInstallation } from "../../coordinator/src/agents/command/installation.ts";
import { clean, readPrinted } from "../../coordinator/src/agents/command/printed.ts";
import {
  RecipeError,
  fillSlots,
  loadRecipes,
  recipeOf,
  type Recipe,
  type Slots,
  SLOTS,
} from "../../coordinator/src/agents/command/recipe.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { RECIPE, ROOT } from "./command-kit.ts";

const recipes = loadRecipes(ROOT, "/nonexistent");
const shipped = (name: string): Recipe => {
  const recipe = recipes.get(name);
  if (!recipe) throw new Error(`no recipe ${name}`);
  return recipe;
};
const slots = Object.fromEntries(SLOTS.map((slot) => [slot, slot.startsWith("WALL") ? "60" : `<${slot}>`])) as Slots;
const file = (name: string, end: string): string => {
  const [, text = ""] = Object.entries(shipped(name).files).find(([path]) => path.endsWith(end)) ?? [];
  return fillSlots(text, slots);
};

describe("recipes", () => {
  it("are shipped for the four CLIs, and their settings are well-formed and name our server", () => {
    expect([...recipes.keys()].sort()).toEqual(["claude-code", "codex", "gemini", "opencode"]);
    const server = { command: "<NODE>", args: ["<MCP_SERVER>", "<MCP_SOCKET>"] };
    expect(JSON.parse(file("claude-code", "mcp.json"))).toMatchObject({ mcpServers: { vibeserve: server } });
    expect(JSON.parse(file("gemini", "settings.json"))).toMatchObject({ mcpServers: { vibeserve: server } });
    expect(JSON.parse(file("opencode", "opencode.json"))).toMatchObject({
      provider: { anthropic: { options: { baseURL: "<BASE_URL>/v1", apiKey: "<KEY>" } } },
      mcp: { vibeserve: { type: "local", command: ["<NODE>", "<MCP_SERVER>", "<MCP_SOCKET>"] } },
    });
    expect(file("codex", "config.toml")).toMatch(
      /\[mcp_servers\.vibeserve\]\ncommand = "<NODE>"\nargs = \["<MCP_SERVER>", "<MCP_SOCKET>"\]\n/,
    );
  });

  it("of the user stand beside or over the shipped ones", () => {
    using data = tempDir("recipes");
    writeFileSync(join(data.path, "agents.yaml"), JSON.stringify({ mine: RECIPE, codex: { ...RECIPE, program: "codex-nightly" } }));
    const all = loadRecipes(ROOT, data.path);
    expect(all.get("mine")).toEqual(RECIPE);
    expect(all.get("codex")?.program).toBe("codex-nightly");
    expect(all.size).toBe(5);
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    ["unknown key", { colour: "red" }, /colour/],
    ["unknown slot", { argv: ["${HOST}"] }, /unknown slot \$\{HOST\}; there are: PROMPT, /],
    ["prompt in settings", { env: { P: "${PROMPT}" } }, /argv only/],
    ["no prompt", { stdin: "nothing" }, /the prompt reaches it neither/],
    ["settings outside its home", { files: { "/etc/passwd": "x" } }, /files/],
    ["any path", { api: { ...RECIPE.api, paid: ["POST *"] } }, /is not of the form/],
  ])("are refused with the place and the key: %s", (_, change, message) => {
    expect(() => recipeOf("agents.yaml: mine", { ...RECIPE, ...change })).toThrow(message);
    expect(() => recipeOf("agents.yaml: mine", { ...RECIPE, ...change })).toThrow(/^agents.yaml: mine: /);
  });

  it("that are no YAML are refused with the file", () => {
    using data = tempDir("recipes");
    writeFileSync(join(data.path, "agents.yaml"), "a: [");
    expect(() => loadRecipes(ROOT, data.path)).toThrow(RecipeError);
  });

  it("a slot's text is not read for slots again", () => {
    expect(fillSlots("${PROMPT}|${MODEL}", { ...slots, PROMPT: "${KEY}" })).toBe("${KEY}|<MODEL>");
  });
});

describe("what a CLI prints is read by its recipe", () => {
  it("Claude Code's object", () => {
    const usage = { input_tokens: 200, cache_creation_input_tokens: 40, cache_read_input_tokens: 20, output_tokens: 60 };
    const object = { type: "result", is_error: false, result: "all done", total_cost_usd: 0.0011, usage };
    expect(readPrinted(shipped("claude-code").output, JSON.stringify(object))).toEqual({
      ...{ finalText: "all done", costUsd: 0.0011 },
      usage: { input: 200, output: 60, cacheRead: 20, cacheWrite: 40 },
    });
  });

  it("Codex's events", () => {
    const events = [
      { type: "item.completed", item: { type: "agent_message", text: "first" } },
      { type: "item.completed", item: { type: "reasoning", text: "hm" } },
      { type: "item.completed", item: { type: "agent_message", text: "all done" } },
      { type: "turn.completed", usage: { input_tokens: 100, cached_input_tokens: 40, output_tokens: 30 } },
    ];
    expect(readPrinted(shipped("codex").output, events.map((e) => JSON.stringify(e)).join("\n"))).toEqual({
      ...{ finalText: "all done", costUsd: null },
      usage: { input: 60, output: 30, cacheRead: 40, cacheWrite: 0 },
    });
  });

  it("Gemini's object, after its warnings, over all models", () => {
    const tokens = { prompt: 100, candidates: 30, total: 135, cached: 40, thoughts: 5, tool: 0 };
    const object = { response: "all done", stats: { models: { a: { tokens }, b: { tokens } } } };
    expect(readPrinted(shipped("gemini").output, `Warning: {x}\n${JSON.stringify(object, null, 2)}\n`)).toEqual({
      ...{ finalText: "all done", costUsd: null },
      usage: { input: 120, output: 70, cacheRead: 80, cacheWrite: 0 },
    });
  });

  it("OpenCode's events, its steps added up", () => {
    const step = {
      type: "step_finish",
      part: { cost: 0.5, tokens: { input: 100, output: 30, reasoning: 2, cache: { read: 10, write: 20 } } },
    };
    const events = [step, { type: "text", part: { text: "all done" } }, step];
    expect(readPrinted(shipped("opencode").output, events.map((e) => JSON.stringify(e)).join("\n"))).toEqual({
      ...{ finalText: "all done", costUsd: 1 },
      usage: { input: 200, output: 64, cacheRead: 20, cacheWrite: 40 },
    });
  });

  it("and is worth nothing where it has another shape", () => {
    for (const text of ["", "killed", "[]", "null", '{"result": 5, "usage": {"input_tokens": "many"}, "total_cost_usd": -1}'])
      expect(readPrinted(shipped("claude-code").output, text)).toEqual({ usage: null, costUsd: null, finalText: "" });
    const long = JSON.stringify({ type: "result", result: `\u001b]0;title\u0007${"x".repeat(20_000)}` });
    expect(readPrinted(shipped("claude-code").output, long).finalText).toHaveLength(16_384);
    expect(clean("a\u001b[2Jb\rc\u0000d\ne\tf\u009b1m")).toBe("abcd\ne\tf1m");
  });
});

it("an installation is the npm package, or the program alone; what is no program is passed over", () => {
  using dir = tempDir("install");
  const place = join(dir.path, "lib/node_modules/@vendor/cli/bin");
  for (const folder of [place, join(dir.path, "bin"), join(dir.path, "first/tool"), join(dir.path, "second")])
    mkdirSync(folder, { recursive: true });
  for (const path of [join(place, "cli.js"), join(dir.path, "second/single"), join(dir.path, "second/data")])
    writeFileSync(path, "#!/bin/sh\n");
  for (const path of [join(place, "cli.js"), join(dir.path, "second/single")]) chmodSync(path, 0o755);
  symlinkSync(join(place, "cli.js"), join(dir.path, "bin/tool"));
  const path = ["", "relative", join(dir.path, "first"), join(dir.path, "bin"), join(dir.path, "second")].join(":");
  expect(findInstallation("tool", path, [])).toEqual({
    program: join(place, "cli.js"),
    folders: [join(dir.path, "lib/node_modules/@vendor/cli")],
  });
  expect(findInstallation("single", path, [])).toEqual({
    program: join(dir.path, "second/single"),
    folders: [join(dir.path, "second/single")],
  });
  expect(findInstallation("single", path, [join(dir.path, "second")])?.folders).toEqual([join(dir.path, "second")]);
  expect(findInstallation("data", path, [])).toBeNull();
});
