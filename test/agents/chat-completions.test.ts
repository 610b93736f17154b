import { expect, test } from "vitest";
import { chatCompletions } from "../../coordinator/src/agents/chat-completions.ts";
import { assistant, malformed, user, type Message } from "../../coordinator/src/agents/conversation.ts";
import { promptBytes, type TurnRequest } from "../../coordinator/src/agents/provider.ts";
import { ChatServer, type ChatScript } from "../kit/chat-server.ts";

const tools = [
  { name: "read", description: "Reads a file.", input: { type: "object", properties: { path: { type: "string" } }, required: ["path"] } },
  { name: "list", description: "Lists files.", input: { type: "object", properties: {} } },
];
const request: TurnRequest = {
  turn: "planner:1",
  campaign: "c1",
  model: "qwen3-coder",
  maxTokens: 4000,
  system: "You are careful.",
  messages: [user("begin")],
  reply: { kind: "tools", tools },
};
const schema = { type: "object", properties: { ok: { type: "boolean" } }, required: ["ok"], additionalProperties: false };
const never = new AbortController().signal;

async function ask(script: ChatScript, asked: TurnRequest = request, apiKey: string | null = "sk-canary") {
  await using server = await ChatServer.start(() => script);
  const outcome = await chatCompletions({ baseUrl: server.url, apiKey }).turn(asked, never);
  return { outcome, asked: server.asked };
}

test("text and several calls come whole, and what was billed with what of it was cached", async () => {
  const { outcome, asked } = await ask({
    text: "I look at both first.",
    calls: [
      { tool: "read", input: { path: "src/a.cpp" }, id: "call_a" },
      { tool: "list", json: "", id: "call_b" },
    ],
    usage: { prompt_tokens: 900, completion_tokens: 40, prompt_tokens_details: { cached_tokens: 800 } },
  });
  expect(outcome).toEqual({
    status: "said",
    content: [
      { type: "text", text: "I look at both first." },
      { type: "call", id: "call_a", tool: "read", input: { path: "src/a.cpp" } },
      { type: "call", id: "call_b", tool: "list", input: {} },
    ],
    usage: { input: 100, output: 40, cacheRead: 800, cacheWrite: 0 },
  });
  expect(asked[0]?.path).toBe("/v1/chat/completions");
  expect(asked[0]?.headers.authorization).toBe("Bearer sk-canary");
});

test("a conversation goes back as it was: calls, what tools answered, reasoning under the key it came with", async () => {
  await using server = await ChatServer.start((_asked, before) =>
    before === 0
      ? {
          reasoning: "Which file is it?",
          calls: [
            { tool: "read", input: { path: "a" }, id: "call_a" },
            { tool: "read", json: '{"path"', id: "call_b" },
          ],
        }
      : { text: "done" },
  );
  const provider = chatCompletions({ baseUrl: server.url, apiKey: null });
  const first = await provider.turn(request, never);
  if (first.status !== "said") throw new Error(`no turn with tools: ${first.status}`);
  const answers = [
    { id: "call_a", text: "int a;", isError: false },
    { id: "call_b", text: "the arguments are no JSON", isError: true },
  ];
  const messages: Message[] = [
    ...request.messages,
    { role: "assistant", content: first.content },
    { role: "user", answers, text: "go on" },
  ];
  const last: TurnRequest = { ...request, messages: [...messages, assistant(""), user("say something")], effort: "high" };
  expect(await provider.turn(last, never)).toMatchObject({ status: "said", content: [{ type: "text", text: "done" }] });
  const functionOf = (name: string, json: string, id: string) => ({ type: "function", id, function: { name, arguments: json } });
  expect(server.asked[1]?.body).toEqual({
    model: "qwen3-coder",
    max_tokens: 4000,
    stream: true,
    stream_options: { include_usage: true },
    reasoning_effort: "high",
    messages: [
      { role: "system", content: "You are careful." },
      { role: "user", content: "begin" },
      {
        role: "assistant",
        content: null,
        reasoning_content: "Which file is it?",
        tool_calls: [functionOf("read", '{"path":"a"}', "call_a"), functionOf("read", '{"__malformed":"{\\"path\\""}', "call_b")],
      },
      { role: "tool", tool_call_id: "call_a", content: "int a;" },
      { role: "tool", tool_call_id: "call_b", content: "error: the arguments are no JSON" },
      { role: "user", content: "go on" },
      { role: "assistant", content: "" },
      { role: "user", content: "say something" },
    ],
    tools: tools.map(({ name, description, input }) => ({ type: "function", function: { name, description, parameters: input } })),
  });
  expect(server.asked[0]?.body).not.toHaveProperty("reasoning_effort");
  expect(server.asked[0]?.headers).not.toHaveProperty("authorization");
});

test("a reply to a schema is asked for as one", async () => {
  const { outcome, asked } = await ask({ text: '{"ok": true}' }, { ...request, reply: { kind: "schema", schema } });
  expect(outcome).toEqual({
    status: "answered",
    reply: '{"ok": true}',
    usage: { input: 1000, output: 100, cacheRead: 0, cacheWrite: 0 },
  });
  expect(asked[0]?.body["response_format"]).toEqual({ type: "json_schema", json_schema: { name: "reply", strict: true, schema } });
  expect(asked[0]?.body).not.toHaveProperty("tools");
});

test("arguments that are no JSON object stay a call, with what was written; ids and indexes that a server leaves out are made up for", async () => {
  const long = `{"path": "${"x".repeat(3_000)}`;
  const { outcome } = await ask({
    noIndex: true,
    calls: [
      { tool: "read", json: '{"path": "a"}}', id: "one" },
      { tool: "read", json: "[1]", id: "two" },
      { tool: "read", json: long, id: "three" },
    ],
  });
  if (outcome.status !== "said") throw new Error(`no turn with tools: ${outcome.status}`);
  const inputs = outcome.content.map((b) => (b.type === "call" ? malformed(b.input) : null));
  expect(inputs).toEqual(['{"path": "a"}}', "[1]", long.slice(0, 2_000)]);
  const nameless = await ask({
    calls: [
      { tool: "read", input: {}, id: null },
      { tool: "", input: {}, id: null },
    ],
  });
  expect(nameless.outcome).toMatchObject({
    content: [
      { id: "call-1-0", tool: "read" },
      { id: "call-1-1", tool: "unnamed" },
    ],
  });
});

const answered: [ChatScript, object][] = [
  [
    { status: 401, message: "no such key" },
    { code: "bad-key", temporary: false, message: "401 no such key" },
  ],
  [{ status: 403, message: "not yours" }, { code: "bad-key" }],
  [
    { status: 404, message: "The model `x` does not exist." },
    { code: "no-such-model", temporary: false },
  ],
  [{ status: 413, message: "Payload Too Large" }, { code: "context-overflow" }],
  [
    { status: 429, message: "slow down", retryAfter: "7" },
    { code: "rate-limited", temporary: true, retryAfterMs: 7_000 },
  ],
  [
    { status: 429, message: "slow down" },
    { code: "rate-limited", retryAfterMs: null },
  ],
  [
    { status: 500, message: "EngineCore died" },
    { code: "overloaded", temporary: true },
  ],
  [
    { status: 503, message: "Loading model", retryAfter: "1e99" },
    { code: "overloaded", retryAfterMs: 86_400_000 },
  ],
  [{ status: 529, message: "Overloaded" }, { code: "overloaded" }],
  [
    { status: 400, message: "bad schema" },
    { code: "refused-request", temporary: false, message: "400 bad schema" },
  ],
  // In the words of vLLM, its engine, SGLang, llama-server and our own stacks.
  [
    { status: 400, message: "This model's maximum context length is 4096 tokens. However, you requested 5000" },
    { code: "context-overflow" },
  ],
  [
    { status: 400, message: "The decoder prompt (length 5951) is longer than the maximum model length of 4096." },
    { code: "context-overflow" },
  ],
  [
    { status: 400, message: "The input (5000 tokens) is longer than the model's context length (4096 tokens).", flat: true },
    { code: "context-overflow", message: expect.stringContaining("5000 tokens") as string },
  ],
  [{ status: 400, message: "request (4476 tokens) exceeds the available context size (4096 tokens)" }, { code: "context-overflow" }],
  [{ status: 400, message: "'max_tokens' and the prompt's 9019 are more than the context's 8192" }, { code: "context-overflow" }],
  [
    { status: 500, message: "Context size has been exceeded." },
    { code: "context-overflow", temporary: false },
  ],
  // In the stream.
  [{ text: "so", error: { message: "the request exceeds the available context size", code: 400 } }, { code: "context-overflow" }],
  [
    { text: "so", error: { message: "the engine is gone", code: 500 } },
    { code: "cut-off", temporary: true },
  ],
  [
    { chunk: { choices: "none" } },
    { code: "refused-request", message: expect.stringMatching(/not an answer of chat completions: .*choices/s) as string },
  ],
  // What it ends with.
  [
    { text: "so", cut: true },
    { code: "cut-off", usage: null },
  ],
  [
    { calls: [{ tool: "read", input: { path: "src/a.cpp" } }], cut: true },
    { code: "cut-off", usage: null },
  ],
  [
    { calls: [{ tool: "read", input: {} }], finish: null, usage: null },
    { code: "cut-off", usage: null },
  ],
  [{ text: "so", finish: "abort" }, { code: "cut-off" }],
  [
    { text: "so", finish: "length" },
    { code: "cut-short", temporary: false, usage: { input: 1000, output: 100, cacheRead: 0, cacheWrite: 0 } },
  ],
  [{ finish: "content_filter" }, { code: "refusal" }],
  [{ refusal: "I can't help with that." }, { code: "refusal", message: "I can't help with that." }],
];
test.each(answered)("%j is a failure by its code, never an exception", async (script, failure) => {
  const { outcome, asked } = await ask(script);
  expect(outcome).toMatchObject({ status: "failed", ...failure });
  expect(asked).toHaveLength(1);
});

test("nobody there is unreachable, with what the network said", async () => {
  const server = await ChatServer.start(() => ({ text: "" }));
  await server[Symbol.asyncDispose]();
  const outcome = await chatCompletions({ baseUrl: server.url, apiKey: null }).turn(request, never);
  expect(outcome).toMatchObject({ status: "failed", code: "unreachable", temporary: true, usage: null });
  expect(outcome).toHaveProperty("message", expect.stringContaining("ECONNREFUSED"));
});

test("without tools none are named, since servers refuse an empty list", async () => {
  const { outcome, asked } = await ask({ text: "hello" }, { ...request, reply: { kind: "tools", tools: [] } });
  expect(outcome).toMatchObject({ status: "said", content: [{ type: "text", text: "hello" }] });
  expect(asked[0]?.body).not.toHaveProperty("tools");
});

test("a server that counts no tokens is taken to have used what was reserved", async () => {
  const { outcome } = await ask({ text: "hello", usage: null });
  expect(outcome).toMatchObject({ usage: { input: promptBytes(request), output: 4000, cacheRead: 0, cacheWrite: 0 } });
});

test("a server that refuses max_tokens is asked by the newer name from then on", async () => {
  const message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
  await using server = await ChatServer.start(({ body }) => ("max_tokens" in body ? { status: 400, message } : { text: "hello" }));
  const provider = chatCompletions({ baseUrl: server.url, apiKey: "k" });
  expect(await provider.turn(request, never)).toMatchObject({ status: "said" });
  expect(await provider.turn(request, never)).toMatchObject({ status: "said" });
  expect(server.asked.map(({ body }) => body["max_completion_tokens"])).toEqual([undefined, 4000, 4000]);
});

test.each([
  ["before the answer begins", { hang: true }],
  ["in the middle of it", { text: "so", calls: [{ tool: "read", input: {} }], stall: true }],
] as [string, ChatScript][])("aborted %s, and only then, it rejects", async (_when, script) => {
  const abort = new AbortController();
  await using server = await ChatServer.start(() => script);
  const turn = chatCompletions({ baseUrl: server.url, apiKey: null }).turn(request, abort.signal);
  await server.stalled;
  abort.abort(new Error("the campaign was stopped"));
  await expect(turn).rejects.toThrow();
});
