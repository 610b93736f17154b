import { appendFileSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Tokenizer } from "../../tokenizer/index.ts";
import type { Reference } from "../reference.ts";
import { openPrivateDir, privateSeed, writePrivateFile } from "./private-dir.ts";
import { decodeRecord, encodeRecord, type ScoredSequence } from "./record.ts";
import { DEPTHS, planSequence, type Depth } from "./sequence.ts";

/** Sequences to take: at least `positions` scored positions in all, `deep` and so on counting whole sequences of those depths. */
export interface SliceSpec {
  readonly positions: number;
  readonly mid?: number;
  readonly deep?: number;
  readonly long?: number;
}
/** Scored sequences that no check of this campaign used before. */
export interface Slice {
  readonly sequences: readonly ScoredSequence[];
  readonly positions: number;
}
export interface TakeOptions {
  readonly signal?: AbortSignal | undefined;
  readonly reference?: Reference;
}
export interface PoolOptions {
  /** The pool's own folder under the agent's private directory; made with mode 0700. One process at a time. */
  readonly dir: string;
  /** sha256 of the weights: records of other weights are worthless. */
  readonly modelDigest: string;
  readonly tokenizer: Tokenizer;
  /** A process of the pool's own (nice 10), so that checks never wait for it. Not closed by the pool. */
  readonly reference: Reference;
  /** Told of records that were dropped because their digest was wrong. */
  readonly onDropped?: (name: string) => void;
  /** Fixed instead of drawn: for the public set alone. */
  readonly publicSeed?: string;
}

/** Positions scored for a campaign before the filler rests. */
export const POOL_POSITIONS = 5000;
/** Unused sequences that the filler keeps ready: one crown and three screens. */
const READY: Readonly<Record<Depth, number>> = { short: 28, mid: 4, deep: 4, long: 1 };

/**
 * The campaign's hidden positions.
 *
 * 1. A sequence is handed out once: its name is on disk in `used` before `take` returns, so not even a crash gives it out again.
 * 2. What is handed out was written by this pool for these weights: every record is read back and its HMAC (key: the private seed) checked.
 * 3. Nothing that a candidate can see decides what a sequence holds.
 */
export class Pool {
  readonly #options: PoolOptions;
  readonly #key: string;
  readonly #seed: string;
  readonly #used: Set<string>;
  readonly #names: Record<Depth, string[]> = { short: [], mid: [], deep: [], long: [] };
  readonly #nextIndex: Record<Depth, number> = { short: 0, mid: 0, deep: 0, long: 0 };
  #scored = 0;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: PoolOptions) {
    this.#options = options;
    openPrivateDir(options.dir);
    this.#seed = options.publicSeed ?? privateSeed(options.dir);
    this.#key = `${this.#seed} ${options.modelDigest}`;
    this.#used = new Set(readLines(join(options.dir, "used")));
    for (const name of this.#used) this.#note(name);
    for (const file of readdirSync(options.dir)) {
      const name = /^((?:short|mid|deep|long)-\d+)\.record$/.exec(file)?.[1];
      if (name === undefined) continue;
      this.#note(name);
      const record = this.#read(name);
      if (!record) continue;
      this.#scored += record.scores.positions;
      if (!this.#used.has(name)) this.#names[record.depth].push(name);
    }
  }

  /** Opens a pool or goes on with the one that lies there. */
  static open(options: PoolOptions): Pool {
    return new Pool(options);
  }

  /** Positions scored so far, used ones included. */
  get scored(): number {
    return this.#scored;
  }

  /** Whether the filler has something to do: fewer than POOL_POSITIONS scored, or too few sequences ready for the next checks. */
  get wantsMore(): boolean {
    return this.#wanted() !== null;
  }

  /** Scores sequences until the pool wants no more; stops at the signal. Throws ReferenceError. Run it while builds run. */
  async fill(signal: AbortSignal): Promise<void> {
    try {
      for (let depth = this.#wanted(); depth; depth = this.#wanted()) await this.#score(depth, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Fresh sequences; scores what is not ready, by the pool's own process or by `options.reference`, which does not wait behind everything else. */
  async take(spec: SliceSpec, options: TakeOptions = {}): Promise<Slice> {
    const turn = this.#turn.then(() => this.#take(spec, options));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #take(spec: SliceSpec, options: TakeOptions): Promise<Slice> {
    const sequences: ScoredSequence[] = [];
    let positions = 0;
    const add = async (depth: Depth): Promise<void> => {
      const s = await this.#one(depth, options);
      sequences.push(s);
      positions += s.scores.positions;
    };
    for (const depth of ["mid", "deep", "long"] as const) for (let i = 0; i < (spec[depth] ?? 0); i++) await add(depth);
    while (positions < spec.positions) await add("short");
    return { sequences, positions };
  }

  async #one(depth: Depth, options: TakeOptions): Promise<ScoredSequence> {
    for (;;) {
      const name = this.#names[depth].shift() ?? (await this.#score(depth, options));
      if (this.#used.has(name)) continue;
      this.#used.add(name);
      appendFileSync(join(this.#options.dir, "used"), `${name}\n`, { mode: 0o600, flush: true });
      const record = this.#read(name);
      if (record) return record;
    }
  }

  #wanted(): Depth | null {
    const missing = DEPTHS.find((d) => this.#names[d].length < READY[d]);
    return missing ?? (this.#scored < POOL_POSITIONS ? "short" : null);
  }

  /** Scores the next sequence of a depth, keeps it, and returns its name. */
  async #score(depth: Depth, { signal, reference = this.#options.reference }: TakeOptions): Promise<string> {
    const index = this.#nextIndex[depth]++;
    const { name, kind, tokens, from } = planSequence(this.#seed, depth, index, this.#options.tokenizer);
    const [scores] = await reference.score([{ tokens, from }], signal);
    if (!scores) throw new Error("the reference returned no scores");
    writePrivateFile(this.#path(name), encodeRecord({ name, depth, kind, tokens, scores }, this.#key));
    this.#scored += scores.positions;
    this.#names[depth].push(name);
    return name;
  }

  #read(name: string): ScoredSequence | null {
    const bytes = readIfThere(this.#path(name));
    const record = bytes && decodeRecord(bytes, this.#key);
    if (record?.name === name) return record;
    this.#options.onDropped?.(name);
    return null;
  }

  /** Keeps indices of names on disk from being drawn again. */
  #note(name: string): void {
    const [depth, index] = name.split("-");
    const known = DEPTHS.find((d) => d === depth);
    if (known) this.#nextIndex[known] = Math.max(this.#nextIndex[known], Number(index) + 1);
  }

  #path(name: string): string {
    return join(this.#options.dir, `${name}.record`);
  }
}

function readLines(path: string): string[] {
  return (readIfThere(path)?.toString("utf8") ?? "").split("\n").filter(Boolean);
}

function readIfThere(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}
