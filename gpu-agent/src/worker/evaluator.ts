import { chmod, mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "pino";
import { buildReference, DevicePlace, hfReference, Pool, Reference, type ReferenceOptions } from "../accuracy/index.ts";
import type { Compiler } from "../probe/compiler.ts";
import { loadTokenizer, type Tokenizer } from "../tokenizer/index.ts";
import { JobError } from "./job-error.ts";
import { onlyWeights, verifiedWeights, type ModelRef } from "./weights.ts";

export interface EvaluatorDeps {
  /** The agent's private folder for the evaluator. */
  readonly dir: string;
  readonly cacheDir: string;
  readonly compiler: Compiler | null;
  /** Python of the reference of Hugging Face checkpoints: one that has torch and transformers. Absent, null: none is known. */
  readonly python?: string | null;
  readonly threads: number;
  /** Points the reference at the agent's accelerator; absent: it has none. */
  readonly env?: Readonly<Record<string, string>>;
  /** There is such an accelerator, whose memory references of Hugging Face checkpoints take. */
  readonly accelerator?: boolean;
  /** Runs what can be left at any time, on a machine that nobody else wants; see Alone.idle(). */
  readonly idle: (work: (signal: AbortSignal) => Promise<void>, signal: AbortSignal) => Promise<void>;
  readonly log: Logger;
}

/** A model as the evaluator knows it: weights just verified, tokenizer, a reference process for judging. */
export interface KnownModel {
  readonly path: string;
  readonly tokenizer: Tokenizer;
  readonly referenceOptions: ReferenceOptions;
  readonly reference: Reference;
}

/** The seed of the public set: no secret, so that an implementing agent can be shown what it was asked. */
const PUBLIC_SEED = "vibeserve public set 1";
/** Background scoring gives way to everything else. */
const NICE = 10;
/** Hidden pools of campaigns that are kept; one takes a few MB. */
const KEPT_POOLS = 20;
/** A judging process holds the weights in memory; it goes when nothing was judged for this long. */
const REFERENCE_IDLE_MS = 20_000;

interface OpenPool {
  readonly campaign: string;
  readonly pool: Pool;
  readonly reference: Reference;
}

/**
 * What the evaluator of this agent keeps between jobs: models, the hidden pool of the running campaign, and its filler, which scores positions in the
 * background. 1. The filler works only between device jobs: rest() before one, wake() when a job has ended, and prepare() within a build, which has the
 * machine for both; else it works while no other agent wants the machine. 2. Nothing here is ever
 * mounted into a sandbox. One campaign's pool is open at a time.
 */
export class Evaluator {
  readonly #deps: EvaluatorDeps;
  readonly #place = new DevicePlace();
  readonly #models = new Map<string, KnownModel>();
  /** While it is being looked for, or built. */
  #executable: Promise<string> | null = null;
  #open: OpenPool | null = null;
  #last: ModelRef | null = null;
  #filling: { readonly abort: AbortController; readonly done: Promise<void> } | null = null;
  #idle: NodeJS.Timeout | null = null;
  /** Jobs on accelerators: beside them builds go on, and what would be filled in for those would run where a clock runs. */
  #held = 0;
  #preparing: Promise<void> = Promise.resolve();

  constructor(deps: EvaluatorDeps) {
    this.#deps = deps;
  }

  /** Throws JobError where weights or compiler are missing. The reference is hashed as well: it may have been damaged since the last job. */
  async model(ref: ModelRef): Promise<KnownModel> {
    const path = await verifiedWeights(this.#deps.cacheDir, ref);
    const known = this.#models.get(ref.sha256);
    // Asking Python whether it still has transformers takes seconds; it is met again when the reference starts.
    if (known && ref.format === "hf") return known;
    const program = ref.format === "hf" ? await this.#hfReference() : { executable: await this.#reference() };
    if (known) return known;
    const { threads, env = {}, accelerator = false } = this.#deps;
    const place = accelerator && ref.format === "hf" ? { place: this.#place } : {};
    const referenceOptions = { ...program, model: path, threads, env, ...place };
    const model = { path, tokenizer: loadTokenizer(path), referenceOptions, reference: new Reference(referenceOptions) };
    this.#models.set(ref.sha256, model);
    this.#last = ref;
    return model;
  }

  /** The campaign's hidden pool, or the public set. */
  async pool(campaign: string, ref: ModelRef, level: "hidden" | "public"): Promise<Pool> {
    const model = await this.model(ref);
    const name = level === "public" ? `public-${ref.sha256.slice(0, 16)}` : `${campaign}-${ref.sha256.slice(0, 16)}`;
    if (this.#open?.campaign === name) return this.#open.pool;
    await this.#stopFilling();
    await this.#open?.reference.close();
    this.#open = null;
    const pools = join(this.#deps.dir, "pools");
    await mkdir(pools, { recursive: true, mode: 0o700 });
    await forgetOldest(pools, name);
    const reference = new Reference({ ...model.referenceOptions, nice: NICE });
    const pool = Pool.open({
      dir: join(pools, name),
      modelDigest: ref.sha256,
      tokenizer: model.tokenizer,
      reference,
      onDropped: (record) => this.#deps.log.warn({ record }, "a damaged record of the hidden pool was dropped"),
      ...(level === "public" ? { publicSeed: PUBLIC_SEED } : {}),
    });
    this.#open = { campaign: name, pool, reference };
    return pool;
  }

  /**
   * Begins with a campaign's pool before its first check asks for it: a build says nothing of the model, so it is the last one that was judged here, or the
   * only one in the cache. A wrong guess costs idle time only. Returns at once; whoever called it has the machine until it has called rest().
   */
  prepare(campaign: string): void {
    this.#wake(true);
    if (this.#open?.campaign.startsWith(`${campaign}-`) === true) return;
    this.#preparing = this.#preparing
      .then(async () => {
        const ref = this.#last ?? (await onlyWeights(this.#deps.cacheDir));
        if (ref === null) return;
        await this.pool(campaign, ref, "hidden");
        this.#wake(true);
      })
      .catch((error: unknown) => this.#deps.log.info({ why: String(error) }, "the hidden pool is not prepared yet"));
  }

  /** From now on nothing is scored in the background, until the returned function was called; call rest() as well. */
  hold(): () => void {
    this.#held++;
    return () => {
      this.#held--;
    };
  }

  /** Gives an engine the accelerator's memory, until the returned function was called: no reference is there, and one that is asked meanwhile is on the host. */
  yieldDevice(signal: AbortSignal): Promise<() => void> {
    return this.#place.fill(signal);
  }

  /** Starts filling the open pool, unless it has enough. */
  wake(): void {
    this.#wake(false);
  }

  /** within: the job that has the machine is ours, and waits for rest() before it gives it away. */
  #wake(within: boolean): void {
    if (this.#idle) clearTimeout(this.#idle);
    this.#idle = setTimeout(() => void this.#letGo(), REFERENCE_IDLE_MS);
    this.#idle.unref();
    const open = this.#open;
    if (this.#filling !== null || this.#held > 0 || open === null || !open.pool.wantsMore) return;
    const abort = new AbortController();
    const fill = (signal: AbortSignal): Promise<void> => open.pool.fill(signal);
    const done = (within ? fill(abort.signal) : this.#deps.idle(fill, abort.signal))
      .catch((error: unknown) => this.#deps.log.warn({ why: String(error) }, "filling the hidden pool failed; checks fill it themselves"))
      .finally(() => (this.#filling = null));
    this.#filling = { abort, done };
  }

  /** Stops the filler, and waits until its process is quiet. */
  async rest(): Promise<void> {
    await this.#preparing;
    await this.#stopFilling();
  }

  async #stopFilling(): Promise<void> {
    if (this.#idle) clearTimeout(this.#idle);
    const filling = this.#filling;
    if (filling === null) return;
    filling.abort.abort();
    await filling.done;
  }

  /** A folder whose files other users may read, though they can't list it: mutated weights are shown to a candidate's sandbox from here. */
  async mutationFolder(): Promise<string> {
    const dir = join(this.#deps.dir, "mutated");
    await rm(dir, { recursive: true, force: true });
    await mkdir(dir, { mode: 0o711 });
    await chmod(dir, 0o711);
    return dir;
  }

  async close(): Promise<void> {
    await this.rest();
    await this.#open?.reference.close();
    await Promise.all([...this.#models.values()].map((m) => m.reference.close()));
  }

  async #letGo(): Promise<void> {
    if (this.#filling !== null || this.#held > 0) {
      this.wake();
      return;
    }
    await this.#open?.reference.restart();
    await Promise.all([...this.#models.values()].map((m) => m.reference.restart()));
  }

  async #hfReference(): Promise<{ executable: string; script: readonly string[] }> {
    const { python = null } = this.#deps;
    if (python === null)
      throw new JobError("device", "no-python", "the reference of a Hugging Face checkpoint needs Python: name it with --python");
    return hfReference(python).catch((error: unknown) => {
      throw new JobError("device", "no-transformers", `there is no reference: ${error instanceof Error ? error.message : String(error)}`);
    });
  }

  #reference(): Promise<string> {
    const { compiler, cacheDir } = this.#deps;
    if (compiler === null) throw new JobError("device", "no-compiler", "no C++ compiler was found on this agent, so there is no reference");
    this.#executable ??= buildReference({ compiler: compiler.argv, cacheDir: join(cacheDir, "reference") })
      .catch((error: unknown) => {
        const why = error instanceof Error ? error.message : String(error);
        throw new JobError("harness", "reference-build", `the reference does not build: ${why}`);
      })
      .finally(() => (this.#executable = null));
    return this.#executable;
  }
}

async function forgetOldest(pools: string, keep: string): Promise<void> {
  const names = (await readdir(pools)).filter((name) => name !== keep);
  const aged = await Promise.all(names.map(async (name) => ({ name, at: (await stat(join(pools, name))).mtimeMs })));
  aged.sort((a, b) => b.at - a.at);
  for (const { name } of aged.slice(KEPT_POOLS - 1)) await rm(join(pools, name), { recursive: true, force: true });
}
