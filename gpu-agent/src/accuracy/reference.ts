import { spawn, type ChildProcess, type ChildProcessByStdio } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { z } from "zod";
import { DevicePlace } from "./device-place.ts";
import { decodeScores, encodeRequest, FrameReader, ReferenceError, type Sequence, type SequenceScores } from "./reference-protocol.ts";

/** Tokens of one request: about four seconds on two cores, so that a pause or an end is never far. Longer sequences go alone. */
const BATCH_TOKENS = 1024;
/** A request that takes longer means a broken process: 2,048 tokens take 15 s on two cores, 10 times that on a busy machine. */
const REQUEST_TIMEOUT_MS = 300_000;
const MAX_STDERR = 4000;

const Hello = z.object({
  protocol: z.literal(1),
  top: z.int(),
  vocab: z.int(),
  context: z.int(),
  layers: z.int(),
  threads: z.int(),
  kernel: z.string(),
});
export type ReferenceHello = z.infer<typeof Hello>;

export interface ReferenceOptions {
  readonly executable: string;
  /** Words between the executable and the model: a script that it runs. */
  readonly script?: readonly string[];
  /** A GGUF file, or a Hugging Face folder. */
  readonly model: string;
  /** Default 2. */
  readonly threads?: number;
  /** Inner loop; default: the widest that the CPU runs. All give the same bits. */
  readonly kernel?: "default" | "avx2" | "avx512";
  /** Niceness of the process, default 0; background work gives way with 10. */
  readonly nice?: number;
  /** Beside the agent's own environment: which accelerator it may use, and where its libraries are. */
  readonly env?: Readonly<Record<string, string>>;
  /** The accelerator, where it shares one with others. Absent: what it uses is its own. */
  readonly place?: DevicePlace;
}

interface Running {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly frames: FrameReader;
  readonly hello: ReferenceHello;
}

/**
 * The reference process, started at the first request and again after a cancellation, or after another reference had the device. Requests are served one at a
 * time, in order. A cancelled request kills the process: no stale answer can reach a later request.
 */
export class Reference {
  readonly #options: ReferenceOptions;
  readonly #place: DevicePlace;
  readonly #tenant = { leave: () => this.#kill() };
  #running: Promise<Running> | undefined;
  #loading: ChildProcess | undefined;
  #nextId = 1;
  #closed = false;

  constructor(options: ReferenceOptions) {
    this.#options = options;
    this.#place = options.place ?? new DevicePlace();
  }

  async hello(): Promise<ReferenceHello> {
    return this.#place.use(this.#tenant, async () => (await this.#start()).hello);
  }

  /**
   * Scores sequences; sequences that start alike share that work if they are neighbours. Throws ReferenceError, or the signal's reason.
   */
  async score(sequences: readonly Sequence[], signal?: AbortSignal): Promise<SequenceScores[]> {
    return this.#place.use(
      this.#tenant,
      async () => {
        const scores: SequenceScores[] = [];
        for (const batch of batches(sequences)) scores.push(...(await this.#request(batch, signal)));
        return scores;
      },
      signal,
    );
  }

  /** Ends the process; the next request starts it anew and reads the model file again. */
  async restart(): Promise<void> {
    await this.#place.use(this.#tenant, () => this.#kill());
  }

  /** Kills the process. The object serves no more requests. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #kill(): Promise<void> {
    // One that has not answered yet may read its model for minutes, in which nothing is running yet.
    if (this.#loading) await end(this.#loading);
    const running = await this.#running?.catch(() => undefined);
    this.#running = undefined;
    if (running) await end(running.child);
  }

  #start(): Promise<Running> {
    if (this.#closed) return Promise.reject(new ReferenceError("the reference was closed"));
    return (this.#running ??= this.#spawn().catch((error: unknown) => {
      this.#running = undefined;
      throw error;
    }));
  }

  async #spawn(): Promise<Running> {
    const { executable, script = [], model, threads = 2, kernel, nice = 0, env = {} } = this.#options;
    const given = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const argv = [
      ...(given.length > 0 ? ["env", ...given] : []),
      executable,
      ...script,
      model,
      "--threads",
      String(threads),
      ...(kernel ? ["--kernel", kernel] : []),
      ...(this.#place.full && script.length > 0 ? ["--device", "cpu"] : []),
    ];
    // `nice` is POSIX; the process inherits its niceness.
    const [command, ...args] = nice > 0 ? ["nice", "-n", String(nice), ...argv] : argv;
    const child = spawn(command!, args, { stdio: ["pipe", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr = (stderr + text).slice(-MAX_STDERR)));
    // A write to a process that died fails; its end is reported by the frames' end.
    child.stdin.on("error", () => undefined);
    const frames = new FrameReader(child.stdout, () => stderr.trim());
    child.once("error", (error) => frames.fail(new ReferenceError(`the reference did not start: ${error.message}`)));
    this.#loading = child;
    try {
      const first = await frames.next(REQUEST_TIMEOUT_MS);
      return { child, frames, hello: Hello.parse(JSON.parse(first.payload.toString("utf8"))) };
    } catch (error) {
      // One that is too slow, or says what it should not, would go on and keep the device's memory.
      await end(child);
      throw error;
    } finally {
      this.#loading = undefined;
    }
  }

  async #request(sequences: readonly Sequence[], signal?: AbortSignal): Promise<SequenceScores[]> {
    signal?.throwIfAborted();
    const cancel = (): void => void this.#kill();
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const { child, frames, hello } = await this.#start();
      const id = this.#nextId++;
      child.stdin.write(encodeRequest(id, sequences));
      const answer = await frames.next(REQUEST_TIMEOUT_MS);
      if (answer.id !== id) throw new ReferenceError(`the reference answered request ${answer.id} instead of ${id}`);
      if (answer.status !== 0) throw new ReferenceError(`the reference refused: ${answer.payload.toString("utf8")}`);
      return decodeScores(answer.payload, sequences, hello.top);
    } catch (error) {
      await this.#kill();
      signal?.throwIfAborted();
      throw error instanceof ReferenceError ? error : new ReferenceError(error instanceof Error ? error.message : String(error));
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}

function* batches(sequences: readonly Sequence[]): Generator<Sequence[]> {
  let batch: Sequence[] = [];
  let tokens = 0;
  for (const s of sequences) {
    if (batch.length > 0 && tokens + s.tokens.length > BATCH_TOKENS) {
      yield batch;
      [batch, tokens] = [[], 0];
    }
    batch.push(s);
    tokens += s.tokens.length;
  }
  if (batch.length > 0) yield batch;
}
