import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { anthropic } from "../../coordinator/src/agents/anthropic.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { factOf, startCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";
import { anthropicOn } from "../../coordinator/src/agents/anthropic-clouds.ts";
import { malformed, user, type Answer, type Block, type Message } from "../../coordinator/src/agents/conversation.ts";
import type { ProviderOutcome, TurnRequest } from "../../coordinator/src/agents/provider.ts";
import { EffectBlocked } from "../../coordinator/src/campaign/effect-handlers.ts";
import { MessagesServer, textOf, type Script } from "../kit/messages-server.ts";
import { breakpointsOf } from "../kit/prompt-cache.ts";

const tools = [{ name: "read", description: "Reads a file.", input: { type: "object", properties: { path: { type: "string" } } } }];
const request: TurnRequest = {
  turn: "planner:1",
  campaign: "c1",
  model: "claude-opus-5-5",
  maxTokens: 4000,
  system: "You are careful.",
  messages: [user("begin")],
  reply: { kind: "tools", tools },
};
const never = new AbortController().signal;
const providerOf = (server: MessagesServer) => anthropic({ apiKey: "sk-canary", baseUrl: server.url });
const saidBy = (outcome: ProviderOutcome): Block[] => {
  if (outcome.status !== "said") throw new Error(`no turn with tools: ${JSON.stringify(outcome)}`);
  return outcome.content;
};

async function ask(script: Script, asked: TurnRequest = request) {
  await using server = await MessagesServer.start(() => script);
  return await providerOf(server).turn(asked, never);
}

test("text, several calls and signed reasoning come whole, and go back unchanged with what the tools answered", async () => {
  const blocks = [
    { thinking: "Which files are there to read?", signature: "c2lnbmVk" },
    { text: "I look at both first." },
    { tool: "read", input: { path: "src/a.cpp" }, id: "toolu_a" },
    { tool: "read", input: {}, id: "toolu_b" },
  ];
  await using server = await MessagesServer.start((_asked, before) => (before === 0 ? { blocks } : { blocks: [] }));
  const provider = providerOf(server);
  const content = saidBy(await provider.turn(request, never));
  const thinking = { type: "thinking", thinking: "Which files are there to read?", signature: "c2lnbmVk" };
  expect(content).toEqual([
    { type: "opaque", provider: "anthropic", data: thinking },
    { type: "text", text: "I look at both first." },
    { type: "call", id: "toolu_a", tool: "read", input: { path: "src/a.cpp" } },
    { type: "call", id: "toolu_b", tool: "read", input: {} },
  ]);
  const answers: Answer[] = [
    { id: "toolu_a", text: "int a;", isError: false },
    { id: "toolu_b", text: "path is missing", isError: true },
  ];
  const messages: Message[] = [...request.messages, { role: "assistant", content }, { role: "user", answers, text: "go on" }];
  // It says nothing, which the API does not take back.
  const silent = saidBy(await provider.turn({ ...request, messages }, never));
  expect(silent).toEqual([]);
  const last: Message[] = [...messages, { role: "assistant", content: silent }, user("say something")];
  await provider.turn({ ...request, messages: last, effort: "high" }, never);
  const cache_control = { type: "ephemeral" };
  expect(server.asked[2]?.body).toEqual({
    model: "claude-opus-5-5",
    max_tokens: 4000,
    stream: true,
    output_config: { effort: "high" },
    system: [{ type: "text", text: "You are careful.", cache_control }],
    tools: [{ name: "read", description: "Reads a file.", input_schema: tools[0]?.input }],
    messages: [
      { role: "user", content: [{ type: "text", text: "begin" }] },
      {
        role: "assistant",
        content: [
          thinking,
          { type: "text", text: "I look at both first." },
          { type: "tool_use", id: "toolu_a", name: "read", input: { path: "src/a.cpp" } },
          { type: "tool_use", id: "toolu_b", name: "read", input: {} },
        ],
      },
      {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "toolu_a", content: "int a;" },
          { type: "tool_result", tool_use_id: "toolu_b", content: "path is missing", is_error: true },
          { type: "text", text: "go on", cache_control },
        ],
      },
      { role: "user", content: [{ type: "text", text: "say something", cache_control }] },
    ],
  });
  expect(server.asked[0]?.body).not.toHaveProperty("output_config");
  expect(server.asked.map(({ body }) => textOf(body.messages.at(-1)))).toEqual([
    "begin",
    "int a;\npath is missing\ngo on",
    "say something",
  ]);
});

test("each turn reads from the cache what the turn before it wrote, so that only what is new is written", async () => {
  await using server = await MessagesServer.start((_asked, before) => ({ blocks: [{ tool: "read", input: { path: `${before}` } }] }));
  const provider = providerOf(server);
  let messages: Message[] = [user("begin ".repeat(100))];
  const usages = [];
  for (let turn = 0; turn < 4; turn++) {
    const outcome = await provider.turn({ ...request, messages }, never);
    usages.push(outcome.usage);
    const answers = [{ id: "toolu_0", text: "x".repeat(300), isError: false }];
    messages = [...messages, { role: "assistant", content: saidBy(outcome) }, { role: "user", answers, text: "" }];
  }
  const [first, ...later] = usages;
  expect(first).toMatchObject({ input: 0, cacheRead: 0 });
  let before = first?.cacheWrite ?? 0;
  for (const usage of later) {
    expect(usage?.input).toBe(0);
    // Rounded up in each part.
    expect(Math.abs((usage?.cacheRead ?? 0) - before)).toBeLessThanOrEqual(1);
    expect(usage?.cacheWrite).toBeLessThan(200);
    before = (usage?.cacheRead ?? 0) + (usage?.cacheWrite ?? 0);
  }
  // Another conversation of the campaign shares the tools and the system text.
  const other = await provider.turn({ ...request, messages: [user("another")] }, never);
  expect(other.usage?.cacheRead).toBeGreaterThan(0);
  expect(server.asked.map(({ body }) => breakpointsOf(body))).toEqual([2, 3, 3, 3, 2]);
});

test("arguments that are no JSON object stay a call with what was written, as endpoints that only speak like Anthropic's may send them", async () => {
  const blocks = ['{"path": }', '{"path": "a.cpp", "text": "int'].map((json, i) => ({ tool: "read", json, id: `toolu_${i}` }));
  const content = saidBy(await ask({ blocks }));
  expect(content.map((b) => (b.type === "call" ? malformed(b.input) : null))).toEqual(blocks.map(({ json }) => json));
});

const answered: [Script, object][] = [
  [
    { status: 401, type: "authentication_error", message: "invalid x-api-key" },
    { code: "bad-key", temporary: false },
  ],
  [{ status: 403, type: "permission_error", message: "not yours" }, { code: "bad-key" }],
  [
    { status: 404, type: "not_found_error", message: "model: x" },
    { code: "no-such-model", temporary: false },
  ],
  [{ status: 413, type: "request_too_large", message: "Request exceeds the maximum size" }, { code: "context-overflow" }],
  [
    { status: 429, type: "rate_limit_error", message: "slow", retryAfter: "3" },
    { code: "rate-limited", temporary: true, retryAfterMs: 3_000 },
  ],
  [
    { status: 500, type: "api_error", message: "Internal server error" },
    { code: "overloaded", temporary: true },
  ],
  [{ status: 529, type: "overloaded_error", message: "Overloaded" }, { code: "overloaded" }],
  [
    { status: 400, type: "invalid_request_error", message: "prompt is too long: 210000 tokens > 200000 maximum" },
    { code: "context-overflow" },
  ],
  [
    { status: 400, type: "invalid_request_error", message: "max_tokens: too large" },
    { code: "refused-request", temporary: false },
  ],
  [
    { error: "overloaded_error", message: "Overloaded" },
    { code: "cut-off", temporary: true, usage: null },
  ],
  [{ cut: true }, { code: "cut-off", usage: null }],
  [
    { cut: true, blocks: [{ text: "so" }, { tool: "read", input: { path: "src/a.cpp" } }] },
    { code: "cut-off", usage: null },
  ],
  [
    { cut: "end", blocks: [{ tool: "read", input: { path: "src/a.cpp" } }] },
    { code: "cut-off", usage: null },
  ],
  [
    { blocks: [{ text: "so" }], stop: "max_tokens" },
    { code: "cut-short", temporary: false },
  ],
  [{ blocks: [], stop: "model_context_window_exceeded" }, { code: "context-overflow" }],
  [
    { blocks: [], stop: "refusal", usage: { input_tokens: 9, output_tokens: 2 } },
    { code: "refusal", usage: { input: 9, output: 2, cacheRead: 0, cacheWrite: 0 } },
  ],
];
test.each(answered)("%j is a failure by its code, never an exception", async (script, failure) => {
  expect(await ask(script)).toMatchObject({ status: "failed", ...failure });
});

test("nobody there is unreachable, with what the network said", async () => {
  const server = await MessagesServer.start(() => ({ reply: "" }));
  await server[Symbol.asyncDispose]();
  const outcome = await providerOf(server).turn(request, never);
  expect(outcome).toMatchObject({ status: "failed", code: "unreachable", temporary: true, usage: null });
  expect(outcome).toHaveProperty("message", expect.stringContaining("ECONNREFUSED"));
});

test.each([
  ["before the answer begins", { hang: true }],
  ["in the middle of a call", { cut: "stall", blocks: [{ tool: "read", input: { path: "src/a.cpp" } }] }],
] as [string, Script][])("aborted %s, it rejects", async (_when, script) => {
  const abort = new AbortController();
  await using server = await MessagesServer.start(() => script);
  const turn = providerOf(server).turn(request, abort.signal);
  await server.stalled;
  abort.abort(new Error("the campaign was stopped"));
  await expect(turn).rejects.toThrow();
});

test("tokens of a prompt are counted before it is sent, and unknown where the endpoint does not count; only an abort rejects", async () => {
  await using server = await MessagesServer.start(() => ({ reply: "" }));
  const long = { ...request, messages: [user("x".repeat(30_000))] };
  const counted = await providerOf(server).count?.(long, never);
  expect(counted).toBeGreaterThan(10_000);
  const outcome = await ask({ blocks: [] }, long);
  expect(Math.abs((counted ?? 0) - (outcome.usage?.cacheWrite ?? 0))).toBeLessThanOrEqual(1);
  expect(server.counted).toHaveLength(1);
  expect(server.asked).toHaveLength(0);
  await using silent = await MessagesServer.start(() => ({ reply: "" }), { counts: false });
  expect(await providerOf(silent).count?.(long, never)).toBeNull();
  await expect(providerOf(server).count?.(long, AbortSignal.abort())).rejects.toThrow();
});

test("a cloud whose client is not installed blocks until a person installs it, by the command it names", async () => {
  await expect(anthropicOn({ kind: "bedrock", region: "us-east-1" })).rejects.toThrow(EffectBlocked);
  await expect(anthropicOn({ kind: "vertex", region: "us-east5", project: "p" })).rejects.toThrow(
    /npm install --no-save @anthropic-ai\/vertex-sdk@1 \(/,
  );
});

test("a cloud is named in the environment; what is neither says what would be", () => {
  const on = (value: string) => loadSettings({ data: "/nowhere" }, { VIBESERVE_ANTHROPIC_ON: value }).anthropic.cloud;
  expect(on("bedrock:eu-central-1")).toEqual({ kind: "bedrock", region: "eu-central-1" });
  expect(on("vertex:my-project:europe-west1")).toEqual({ kind: "vertex", project: "my-project", region: "europe-west1" });
  for (const bad of ["azure:x", "vertex:only", "bedrock"])
    expect(() => on(bad)).toThrow(/VIBESERVE_ANTHROPIC_ON: .* is neither bedrock:REGION nor/);
});

test("a key may stand in a file, as Secrets are mounted; it wins over a variable, and one that is not there is named", () => {
  using dir = tempDir("key-file");
  const file = join(dir.path, "key");
  writeFileSync(file, "from-the-file\n");
  const keys = (env: NodeJS.ProcessEnv) => {
    const { anthropic, openai } = loadSettings({ data: "/nowhere" }, env);
    return [anthropic.apiKey, openai.apiKey];
  };
  expect(keys({ ANTHROPIC_API_KEY_FILE: file, OPENAI_API_KEY_FILE: file })).toEqual(["from-the-file", "from-the-file"]);
  expect(keys({ ANTHROPIC_API_KEY_FILE: file, ANTHROPIC_API_KEY: "own" })).toEqual(["from-the-file", null]);
  expect(() => keys({ OPENAI_API_KEY_FILE: join(dir.path, "none") })).toThrow(/OPENAI_API_KEY_FILE: ENOENT/);
});

test("a campaign of a cloud whose client is missing is paused with the command that installs it", async () => {
  using dir = tempDir("cloud");
  await using real = await startCoordinator(dir.path, { anthropic: { cloud: { kind: "vertex", project: "p", region: "r" } } });
  await using _agent = await real.agent("a1");
  const target = { ...tinyTarget, agent: "anthropic" as const, budget: { ...tinyTarget.budget, usd: 5 } };
  const actor = await real.coordinator.submit(target, { baselines: [], repeat: null });
  expect((await factOf(real, actor, "campaign.paused")).reason).toMatch(/npm install --no-save @anthropic-ai\/vertex-sdk@1/);
});
