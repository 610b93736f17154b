#!/usr/bin/env node
// A coding CLI as seen from outside: reads a prompt on stdin, starts the MCP server that its settings name, works in its folder, asks its provider, prints
// one JSON object. What it does is the prompt itself: a list of steps, each answered in the result.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createConnection } from "node:net";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";

const flag = (name) => process.argv.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3);

/** What an MCP client sends over stdio: initialize, initialized, tools/list, then the calls. */
async function mcp(calls) {
  const { command, args } = JSON.parse(readFileSync(flag("mcp-config"), "utf8")).mcpServers.vibeserve;
  const server = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
  const send = (message) => server.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
  let id = 0;
  const ask = async (method, params) => {
    send({ id: ++id, method, params });
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error("the MCP server ended");
      const message = JSON.parse(value);
      if (message.id === id) return message.result ?? { error: message.error };
    }
  };
  const client = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "fake-cli", version: "1" } };
  const { serverInfo } = await ask("initialize", client);
  send({ method: "notifications/initialized" });
  const { tools } = await ask("tools/list", {});
  const answers = [];
  for (const [name, input] of calls) answers.push(await ask("tools/call", { name, arguments: input }));
  server.stdin.end();
  await once(server, "exit");
  return { server: serverInfo.name, tools, answers };
}

async function http({ method = "POST", path, body, headers = {} }) {
  const base = new URL(process.env.ANTHROPIC_BASE_URL);
  // As a client would, and without tidying the path as `new URL` does.
  const call = request({
    host: base.hostname,
    port: base.port,
    method,
    path,
    headers: { "x-api-key": process.env.ANTHROPIC_API_KEY, ...headers },
  });
  call.end(body === undefined ? undefined : JSON.stringify(body));
  const [answer] = await once(call, "response");
  let text = "";
  for await (const chunk of answer) text += chunk;
  return { status: answer.statusCode, text };
}

function connect({ host, port }) {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port }, () => resolve("connected"));
    socket.on("error", (error) => resolve(error.code));
  });
}

/** Every place in which the text can be read: environments and argv of all processes, and all files but the system's own. */
function places(text) {
  const found = [];
  const look = (path) => {
    try {
      if (readFileSync(path).includes(text)) found.push(path);
    } catch {
      // Not for our eyes.
    }
  };
  const walk = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (/^\/(usr|proc|sys|dev|lib[^/]*|bin|sbin)$/.test(path)) continue;
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile() && statSync(path).size < 4e6) look(path);
    }
  };
  walk("/");
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
    for (const name of ["environ", "cmdline"]) look(`/proc/${pid}/${name}`);
  return found;
}

const attempt = (act) => {
  try {
    return act() ?? "done";
  } catch (error) {
    return error.code ?? error.message;
  }
};

const STEPS = {
  mcp,
  http,
  connect,
  places,
  read: (path) => attempt(() => readFileSync(path, "utf8")),
  list: (path) => attempt(() => readdirSync(path)),
  write: ([path, text]) =>
    attempt(() => {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }),
  remove: (path) => attempt(() => rmSync(path)),
  env: () => process.env,
  /** A child in a session of its own, which holds no pipe of ours. */
  leave: (name) => {
    spawn(process.execPath, ["-e", "setInterval(() => undefined, 1000)", name], { detached: true, stdio: "ignore" }).unref();
    return "left";
  },
  say: (text) => void process.stderr.write(text),
  hang: () => new Promise(() => setInterval(() => undefined, 1_000)),
  exit: (code) => process.exit(code),
};

/** A prompt that is no list of steps goes to the provider, as a real CLI's does; what its model says is the list. */
async function askModel(prompt) {
  const body = { model: flag("model") ?? process.argv[process.argv.indexOf("--model") + 1], max_tokens: 1000, stream: true };
  const { status, text } = await http({
    path: "/v1/messages",
    headers: { "content-type": "application/json", "anthropic-version": "2023-06-01" },
    body: { ...body, system: [{ type: "text", text: prompt }], messages: [{ role: "user", content: "Go on." }] },
  });
  if (status !== 200) {
    process.stderr.write(text);
    process.exit(1);
  }
  const events = text.split("\n").flatMap((line) => (line.startsWith("data: ") ? [JSON.parse(line.slice(6))] : []));
  return events.map((e) => e.delta?.text ?? "").join("");
}

const stepsOf = async (prompt) => {
  try {
    return JSON.parse(prompt);
  } catch {
    return JSON.parse(await askModel(prompt));
  }
};

let prompt = "";
for await (const chunk of process.stdin) prompt += chunk;
const answers = [];
for (const step of await stepsOf(prompt)) for (const [name, input] of Object.entries(step)) answers.push(await STEPS[name](input));
const usage = { input_tokens: 11, output_tokens: 7, cache_read_input_tokens: 5, cache_creation_input_tokens: 3 };
process.stdout.write(`${JSON.stringify({ type: "result", result: JSON.stringify(answers), usage, total_cost_usd: 0.25 })}\n`);
