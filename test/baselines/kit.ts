import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { request } from "node:http";
import { homedir, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";

export const RECIPES = join(import.meta.dirname, "../../stacks/baselines");
const CACHE = process.env["VIBESERVE_CACHE"] ?? join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "vibeserve");
const BASELINES = join(CACHE, "baselines");
/** Where the slow suite installs the engine; an agent appends a digest of the recipe to the name. */
export const ENGINE = join(BASELINES, "openvino-genai-2026.4.1");
/** Where set-up puts the weights. */
export const WEIGHTS = join(CACHE, "weights/SmolLM2-135M-Instruct.Q4_1.gguf");

/** The interpreter of any installation of this version in the cache, or null. */
export function enginePython(): string | null {
  const names = existsSync(BASELINES) ? readdirSync(BASELINES) : [];
  const found = names.filter((n) => n === basename(ENGINE) || n.startsWith(`${basename(ENGINE)}-`));
  return found.map((n) => join(BASELINES, n, "venv/bin/python")).find((p) => existsSync(p)) ?? null;
}

export interface Reply {
  status: number;
  body: string;
}

export interface Chunk {
  text: string;
  ids: number[];
  finish: string | null;
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number } | null;
}

export interface StreamReply {
  status: number;
  chunks: Chunk[];
  /** Ends with "[DONE]". */
  done: boolean;
}

/** A server.py in a process of its own; `lines` are those of its stderr. */
export interface RunningServer extends AsyncDisposable {
  socketPath: string;
  lines: string[];
  /** Resolves with the first line from `from` on that matches, past or to come. */
  line(pattern: RegExp, from?: number): Promise<string>;
  get(path: string): Promise<Reply>;
  post(path: string, body: unknown): Promise<Reply>;
  stream(path: string, body: object): Promise<StreamReply>;
}

export async function startServer(
  python: string,
  model: string,
  args: string[] = [],
  env: Record<string, string> = {},
): Promise<RunningServer> {
  const folder = mkdtempSync(join(tmpdir(), "vs-"));
  const socketPath = join(folder, "s");
  const argv = [join(RECIPES, "openvino/server.py"), "--socket", socketPath, "--model", model, "--cpus", "0", ...args];
  const child = spawn(python, argv, { env: { PATH: process.env["PATH"] ?? "", ...env }, stdio: ["ignore", "inherit", "pipe"] });
  const lines: string[] = [];
  const waiting: { pattern: RegExp; resolve: (line: string) => void }[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => {
    lines.push(line);
    for (const w of waiting) if (w.pattern.test(line)) w.resolve(line);
  });
  await untilHealthy(child, socketPath, lines);
  const send = (method: string, path: string, body?: unknown) => ask(socketPath, method, path, body);
  return {
    socketPath,
    lines,
    line: (pattern, from = 0) =>
      new Promise((resolve) => {
        const found = lines.slice(from).find((l) => pattern.test(l));
        if (found === undefined) waiting.push({ pattern, resolve });
        else resolve(found);
      }),
    get: (path) => send("GET", path),
    post: (path, body) => send("POST", path, body),
    stream: async (path, body) => {
      const reply = await send("POST", path, { ...body, stream: true, stream_options: { include_usage: true } });
      return parseStream(reply);
    },
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function untilHealthy(child: ChildProcess, socketPath: string, lines: readonly string[]): Promise<void> {
  for (;;) {
    if (child.exitCode !== null) throw new Error(`server.py ended with ${child.exitCode}: ${lines.join("\n")}`);
    if (existsSync(socketPath)) {
      const reply = await ask(socketPath, "GET", "/health").catch(() => null);
      if (reply?.status === 200) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** One request on a connection of its own. Rejects when the server closes it before the answer's end. */
export function ask(socketPath: string, method: string, path: string, body?: unknown): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const req = request({ socketPath, method, path, agent: false }, (res) => {
      const parts: Buffer[] = [];
      res.on("data", (d: Buffer) => parts.push(d));
      res.on("error", reject);
      res.on("end", () => resolve({ status: res.statusCode ?? 0, body: Buffer.concat(parts).toString() }));
    });
    req.on("error", reject);
    req.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

interface Event {
  choices: { text?: string; delta?: { content?: string }; token_ids: number[]; finish_reason: string | null }[];
  usage?: Chunk["usage"];
}

function parseStream(reply: Reply): StreamReply {
  const data = reply.body
    .split("\n\n")
    .filter((e) => e.startsWith("data: "))
    .map((e) => e.slice(6));
  const chunks = data
    .filter((d) => d !== "[DONE]")
    .map((d) => {
      const event = JSON.parse(d) as Event;
      const choice = event.choices[0];
      return {
        text: choice?.delta?.content ?? choice?.text ?? "",
        ids: choice?.token_ids ?? [],
        finish: choice?.finish_reason ?? null,
        usage: event.usage ?? null,
      };
    });
  return { status: reply.status, chunks, done: data.at(-1) === "[DONE]" };
}

export const idsOf = (reply: StreamReply): number[] => reply.chunks.flatMap((c) => c.ids);
export const textOf = (reply: StreamReply): string => reply.chunks.map((c) => c.text).join("");
export const finishOf = (reply: StreamReply): string | null => reply.chunks.find((c) => c.finish !== null)?.finish ?? null;
export const usageOf = (reply: StreamReply): Chunk["usage"] => reply.chunks.find((c) => c.usage !== null)?.usage ?? null;
