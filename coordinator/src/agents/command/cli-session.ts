import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TurnUsage } from "@vibeserve/shared";
import { CandidateFilesError, readCandidateFiles, type CandidateFiles } from "../../checkpoint/candidate-files.ts";
import type { Answer, Block } from "../conversation.ts";
import { priceOf, type Prices } from "../prices.ts";
import { addUsage, NO_USAGE } from "../provider.ts";
import { runCommandAgent, type CommandOutcome, type CommandTask } from "./run-command-agent.ts";
import { purse, type Purse } from "./spending.ts";

/** What the CLI did next: called one of our tools, or ended. `spent`: since the last time. */
export type Event = { spent: Spent } & (
  { kind: "called"; content: Block[] } | { kind: "ended"; content: Block[]; outcome: CommandOutcome }
);
export interface Spent {
  usage: TurnUsage;
  usd: number;
}

type Reply = { text: string; isError: boolean };
interface Waiting {
  tool: string;
  input: unknown;
  reply: (answer: Reply) => void;
}

export interface CliSessionOf {
  task: Omit<CommandTask, "folder" | "call" | "purse" | "signal" | "onOutput" | "onError">;
  /** What stands in the worktree at first; null: the CLI gets an empty folder. */
  tree: CandidateFiles | null;
  /** Changes of the worktree count; else they are thrown away. */
  writes: boolean;
  prices: Prices;
  onError: (error: unknown) => void;
}

/** The tool by which a CLI's own edits enter a conversation: never offered, see tools.ts. */
export const SYNC = "sync";

/**
 * One run of a coding CLI as a conversation: each call of a tool of ours is a turn, and what it changed in its worktree since the last one is part of that turn,
 * so the log holds the tree at every call, and nothing but the log is needed to go on after a kill (with a new run of the CLI).
 */
export class CliSession {
  readonly #of: CliSessionOf;
  readonly #folder: string;
  readonly #abort = new AbortController();
  readonly #calls: Waiting[] = [];
  readonly #done: Promise<CommandOutcome>;
  readonly #purse: Purse & { readonly spentUsd: number };
  #wake = Promise.withResolvers<undefined>();
  #current: { id: string; waiting: Waiting } | null = null;
  #known: CandidateFiles;
  #limitUsd = 0;
  #usage = NO_USAGE;
  /** Reported so far. */
  #usd = 0;
  #n = 0;

  constructor(of: CliSessionOf) {
    this.#of = of;
    this.#folder = mkdtempSync(join(realpathSync(tmpdir()), "vs-tree-"));
    this.#known = of.tree ?? new Map();
    for (const [path, bytes] of this.#known) {
      mkdirSync(dirname(join(this.#folder, path)), { recursive: true });
      writeFileSync(join(this.#folder, path), bytes);
    }
    const own = purse(of.prices, () => this.#limitUsd);
    this.#purse = own;
    this.#done = runCommandAgent({
      ...of.task,
      folder: this.#folder,
      purse: { admit: (ask) => own.admit(ask), settled: (ask, usage) => this.#settled(own, ask, usage) },
      signal: this.#abort.signal,
      onOutput: () => undefined,
      onError: of.onError,
      call: (tool, input, signal) => this.#called(tool, input, signal),
    });
    this.#done.catch(() => undefined).finally(() => this.#wake.resolve(undefined));
  }

  /** So many dollars for the next turn, which is what was reserved for it. What earlier ones left over was given back. */
  allow(usd: number): void {
    this.#limitUsd = this.#usd + usd;
  }

  /** Whether these answer the call at which it waits. */
  awaits(answers: readonly Answer[]): boolean {
    return this.#current !== null && answers.some((a) => a.id === this.#current?.id);
  }

  /** Answers the call that the last turn was. */
  answer(answers: readonly Answer[]): void {
    const current = this.#current;
    this.#current = null;
    const answer = answers.find((a) => a.id === current?.id);
    current?.waiting.reply(answer ?? { text: "not answered", isError: true });
  }

  /** The next call, or the end. Rejects for faults of this machine, and when `signal` is aborted. */
  async next(signal: AbortSignal): Promise<Event> {
    const stop = (): void => this.#wake.resolve(undefined);
    signal.addEventListener("abort", stop, { once: true });
    try {
      for (;;) {
        signal.throwIfAborted();
        const waiting = this.#calls.shift();
        if (waiting) {
          const content = this.#taken(waiting);
          if (content) return { kind: "called", content, spent: this.#spent() };
          continue;
        }
        const ended = await Promise.race([this.#done, this.#wake.promise.then(() => null)]);
        this.#wake = Promise.withResolvers<undefined>();
        if (ended && this.#calls.length === 0)
          return { kind: "ended", content: this.#changes() ?? [], outcome: ended, spent: this.#spent() };
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  async close(): Promise<void> {
    this.#abort.abort();
    this.#current?.waiting.reply({ text: "the conversation is over", isError: true });
    for (const { reply } of this.#calls) reply({ text: "the conversation is over", isError: true });
    await this.#done.catch(() => undefined);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #called(tool: string, input: unknown, signal: AbortSignal): Promise<Reply> {
    return new Promise((resolve) => {
      const waiting = { tool, input, reply: resolve };
      this.#calls.push(waiting);
      this.#wake.resolve(undefined);
      signal.addEventListener("abort", () => resolve({ text: "taken back", isError: true }), { once: true });
    });
  }

  /** The turn's blocks; null where the worktree is not a tree that a candidate may have: the CLI is told, and may mend it. */
  #taken(waiting: Waiting): Block[] | null {
    const changes = this.#changes((why) => waiting.reply({ text: `the worktree: ${why}`, isError: true }));
    if (!changes) return null;
    const id = `cli-${++this.#n}`;
    this.#current = { id, waiting };
    return [...changes, { type: "call", id, tool: waiting.tool, input: waiting.input }];
  }

  /** What the CLI itself wrote since the last turn, as one call. */
  #changes(refuse: (why: string) => void = () => undefined): Block[] | null {
    if (!this.#of.writes) return [];
    let now: CandidateFiles;
    try {
      now = readCandidateFiles(this.#folder);
    } catch (error) {
      if (!(error instanceof CandidateFilesError)) throw error;
      refuse(error.message);
      return null;
    }
    const files: Record<string, string | null> = {};
    for (const [path, bytes] of now) {
      const before = this.#known.get(path);
      if (before && Buffer.from(bytes).equals(before)) continue;
      const text = Buffer.from(bytes).toString("utf8");
      if (!Buffer.from(text).equals(bytes)) {
        refuse(`${path} is not UTF-8 text; remove it (build products do not belong here)`);
        return null;
      }
      files[path] = text;
    }
    for (const path of this.#known.keys()) if (!now.has(path)) files[path] = null;
    this.#known = now;
    return Object.keys(files).length === 0 ? [] : [{ type: "call", id: `cli-${++this.#n}`, tool: SYNC, input: { files } }];
  }

  #settled(own: Purse, ask: Parameters<Purse["settled"]>[0], usage: TurnUsage | null): void {
    own.settled(ask, usage);
    if (!usage) return;
    // The purse charges the worst of what has no price.
    if (priceOf(this.#of.prices, ask.model)) this.#usage = addUsage(this.#usage, usage);
  }

  #spent(): Spent {
    const usd = this.#purse.spentUsd - this.#usd;
    const usage = this.#usage;
    this.#usd += usd;
    this.#usage = NO_USAGE;
    return { usage, usd };
  }
}
