import { type ChildProcess, spawn } from "node:child_process";
import { Agent, request, type IncomingMessage } from "node:http";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

/** A JSON value as an answer holds it; tests pick it apart with `at`. */
export type Value = null | boolean | number | string | Value[] | { [key: string]: Value };

/** The value at a path of keys and indices (`length` of a list among them); throws where the path breaks off. */
export function at(value: Value, ...path: (string | number)[]): Value {
  let here: Value | undefined = value;
  for (const key of path) {
    if (Array.isArray(here)) here = key === "length" ? here.length : here[Number(key)];
    else here = here !== null && typeof here === "object" ? here[key] : undefined;
    if (here === undefined) throw new Error(`no ${path.join(".")} in ${JSON.stringify(value)}`);
  }
  return here;
}

/** The string at a path. */
export function textAt(value: Value, ...path: (string | number)[]): string {
  const found = at(value, ...path);
  if (typeof found !== "string") throw new Error(`${path.join(".")} is no string in ${JSON.stringify(value)}`);
  return found;
}

/** The list of numbers at a path. */
export function numbersAt(value: Value, ...path: (string | number)[]): number[] {
  const found = at(value, ...path);
  if (!Array.isArray(found)) throw new Error(`${path.join(".")} is no list in ${JSON.stringify(value)}`);
  return found.map(Number);
}

export interface Answer {
  readonly status: number;
  readonly body: Value;
}

function parse(text: string): Value {
  const value: unknown = JSON.parse(text);
  return value as Value;
}

/** A stack that serves `model` on a socket of its own until it is disposed. */
export class ServedStack implements AsyncDisposable {
  readonly socket: string;
  /** The exit code, once it has exited; null when a signal killed it. */
  readonly exited: Promise<number | null>;
  readonly #child: ChildProcess;
  readonly #dir = mkdtempSync(join(tmpdir(), "vs-stack-"));
  readonly #agent = new Agent({ keepAlive: true });

  constructor(binary: string, model: string, cpus = "0,1", words: readonly string[] = []) {
    this.socket = join(this.#dir, "s");
    this.#child = spawn(binary, ["--socket", this.socket, "--model", model, "--cpus", cpus, ...words], {
      stdio: ["ignore", "inherit", "inherit"],
    });
    this.exited = new Promise((resolve) => this.#child.once("exit", resolve));
  }

  /** Starts the stack, with these words after those of the contract, and waits, up to 30 s, until it is healthy. */
  static async start(binary: string, model: string, cpus?: string, words?: readonly string[]): Promise<ServedStack> {
    const stack = new ServedStack(binary, model, cpus, words);
    const deadline = performance.now() + 30_000;
    for (;;) {
      const answer = await stack.call("GET", "/health", undefined, AbortSignal.timeout(2_000)).catch(() => undefined);
      if (answer?.status === 200) return stack;
      if (performance.now() > deadline || stack.#child.exitCode !== null) {
        await stack[Symbol.asyncDispose]();
        throw new Error("the stack did not become healthy");
      }
      await setTimeout(10); // nothing announces that the socket exists
    }
  }

  /** Opens a request; the answer's body is still to be read. */
  open(method: string, path: string, body?: Value | string, signal?: AbortSignal): Promise<IncomingMessage> {
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const headers = text === undefined ? {} : { "content-length": Buffer.byteLength(text) };
      const options = { socketPath: this.socket, path, method, headers, agent: this.#agent, ...(signal === undefined ? {} : { signal }) };
      const answered = (response: IncomingMessage) => resolve(response.on("error", () => undefined)); // its reader gets the error as well
      request(options, answered).on("error", reject).end(text);
    });
  }

  async call(method: string, path: string, body?: Value | string, signal?: AbortSignal): Promise<Answer> {
    const response = await this.open(method, path, body, signal);
    let text = "";
    for await (const part of response.setEncoding("utf8")) text += String(part);
    return { status: response.statusCode ?? 0, body: parse(text) };
  }

  async post(path: string, body: Value, signal?: AbortSignal): Promise<Value> {
    const answer = await this.call("POST", path, body, signal);
    if (answer.status !== 200) throw new Error(`${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  /** The chunks of a streamed answer as they arrive. Fails unless it ends with [DONE]. */
  async *stream(path: string, body: { [key: string]: Value }, signal?: AbortSignal): AsyncGenerator<Value> {
    const response = await this.open("POST", path, { ...body, stream: true }, signal);
    if (response.statusCode !== 200) throw new Error(`status ${response.statusCode ?? 0}`);
    let received = "";
    for await (const part of response.setEncoding("utf8")) {
      const events = (received + String(part)).split("\n\n");
      received = events.pop() ?? "";
      for (const event of events) {
        if (!event.startsWith("data: ")) throw new Error(`not an event: ${event}`);
        if (event !== "data: [DONE]") yield parse(event.slice(6));
        else if (received === "") return;
        else throw new Error(`after [DONE]: ${received}`);
      }
    }
    throw new Error("the stream ended without [DONE]");
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** What it has used of the processors so far. */
  cpuSeconds(): number {
    const after = readFileSync(`/proc/${this.pid}/stat`, "latin1").split(") ").at(-1)!.split(" ");
    return (Number(after[11]) + Number(after[12])) / 100; // utime and stime, in ticks of 10 ms
  }

  /** Asks the stack to end (SIGTERM). */
  terminate(): void {
    this.#child.kill("SIGTERM");
  }

  /** All chunks of a streamed answer. */
  async chunks(path: string, body: { [key: string]: Value }): Promise<Value[]> {
    const all = [];
    for await (const chunk of this.stream(path, body)) all.push(chunk);
    return all;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill("SIGKILL");
      await this.exited;
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
