import { randomBytes } from "node:crypto";
import {
  createRng,
  improvement,
  METRICS,
  sequentialInterval,
  sequentialStop,
  sha256,
  type ArtifactRef,
  type BenchSpec,
  type Comparison,
  type Device,
  type MetricName,
  type Tool,
} from "@vibeserve/shared";
import type { DeviceSample } from "../device/adapter.ts";
import { JobError } from "../worker/job-error.ts";
import { otherSide, pairOrder, type BenchArm, type Side } from "./arms.ts";
import { cpuList } from "./cpu-clock.ts";
import { measurementOf, type UnsignedMeasurement } from "./measured.ts";
import { metricsOf } from "./metrics.ts";
import { drawProbes, probesOf, type Judge, type ServedRun } from "./probe.ts";
import { limitsFor, type QuietLimits, type Refusal } from "./quiet.ts";
import { deathOf, ownPids, runOnce, type RunEnd } from "./run-once.ts";
import { samplesArtifact, type CountedRun, type JudgedProbe, type RefusedRun } from "./samples.ts";
import { QUIET_WAIT_MS, untilQuiet } from "./until-quiet.ts";
import { expandWorkload, warmUpWorkload, type BenchRequest, type DrawPrompt } from "./workload.ts";

export interface BenchDeps {
  readonly device: Device;
  readonly leaseToken: number;
  readonly tools: readonly Tool[];
  readonly drawPrompt: DrawPrompt;
  readonly decode: (ids: readonly number[]) => string;
  readonly judge: Judge;
  /** Private to the agent. */
  readonly workDir: string;
  readonly signal: AbortSignal;
  progress(phase: string): void;
  /** Default limitsFor(device). */
  readonly limits?: QuietLimits;
  /** Refused runs in the whole comparison before it is given up as `device-noisy`; default 8. */
  readonly maxRefusals?: number;
  /** Served answers of each arm that the reference judges at the end; default probesOf(). */
  readonly probes?: Readonly<Record<Side, number>>;
  /** Of each device its own sensors; absent: it has none. */
  readonly sensors?: readonly Sensors[];
  /** A private seed, 128 random bits; a test may fix it. */
  readonly drawSeed?: () => string;
}

/** A device's adapter, bound to the device. */
export interface Sensors {
  /** The device's. */
  readonly id: string;
  readonly sample: () => Promise<DeviceSample | null>;
  /** Waits, within a bound, until nobody but `own` computes on it and it is not slowed. */
  readonly quiesce: (own: () => ReadonlySet<number>, withinMs: number, signal: AbortSignal) => Promise<void>;
}

export interface BenchResult {
  readonly comparison: Comparison;
  readonly challenger: UnsignedMeasurement;
  readonly champion: UnsignedMeasurement;
  readonly samples: { readonly bytes: Uint8Array; readonly ref: ArtifactRef };
}

/**
 * Compares two started arms on one lease: an unscored warm-up of each, then interleaved ABBA pairs with fresh prompts, until the sequential stop or
 * `pairs.max`. A refused run takes its whole pair with it (its prompts have been seen), and the pair is run again with a new seed
 * once the device looks quiet, or after 20 s at the latest.
 * Throws JobError: attribution "candidate" where the challenger failed or cheated; "harness" `champion-failed` or `baseline-failed` where the other arm
 * did, which is no fault of the challenger; "device" `device-noisy` where too many runs were refused. Leaves both arms running.
 */
export async function runBench(spec: BenchSpec, arms: Readonly<Record<Side, BenchArm>>, deps: BenchDeps): Promise<BenchResult> {
  const bench = new Bench(spec, arms, deps);
  await bench.warmUp("challenger");
  await bench.warmUp("champion");
  let stop: Comparison["stop"] | null = null;
  while ((stop = sequentialStop(bench.ratios, { ...spec.pairs, confidence: spec.confidence })) === null) await bench.pair();
  await bench.judge();
  return bench.result(stop);
}

class Bench {
  readonly ratios: number[] = [];
  readonly #spec: BenchSpec;
  readonly #arms: Readonly<Record<Side, BenchArm>>;
  readonly #deps: BenchDeps;
  readonly #metric: MetricName;
  readonly #limits: QuietLimits;
  readonly #runs: CountedRun[] = [];
  readonly #served: Record<Side, ServedRun[]> = { challenger: [], champion: [] };
  readonly #refused: RefusedRun[] = [];
  readonly #probes: JudgedProbe[] = [];
  readonly #seeds: string[] = [];
  #bestProbeMs = Infinity;

  constructor(spec: BenchSpec, arms: Readonly<Record<Side, BenchArm>>, deps: BenchDeps) {
    const metric = Object.keys(METRICS).find((name): name is MetricName => name === spec.metric.name);
    if (!metric) throw new JobError("harness", "unknown-metric", `no load generator here measures "${spec.metric.name}"`);
    this.#spec = spec;
    this.#arms = arms;
    this.#deps = deps;
    this.#metric = metric;
    this.#limits = deps.limits ?? limitsFor(deps.device);
  }

  /** Verified like any run, but not timed: a disturbed device matters only where it kept the arm from answering in time. */
  async warmUp(side: Side): Promise<void> {
    this.#deps.progress(`warming up ${side}`);
    const w = warmUpWorkload(this.#spec.workload);
    for (;;) {
      const end = await this.#run(side, w, expandWorkload(w, this.#seed(), this.#deps.drawPrompt));
      if (end.kind === "failed") this.#fail(side, end);
      if (end.kind === "counted" || end.answered) return;
      await this.#refuse("warm-up", side, end);
    }
  }

  /** One pair that counts: repeated until neither of its runs is refused. */
  async pair(): Promise<void> {
    const pair = this.ratios.length;
    for (;;) {
      const done = await this.#attempt(pair);
      if (done) {
        const [challenger, champion] = [done.challenger.metrics[this.#metric], done.champion.metrics[this.#metric]];
        this.ratios.push(improvement(this.#spec.metric, challenger, champion));
        const unit = this.#spec.metric.unit;
        const ratio = this.ratios.at(-1) ?? NaN;
        const said = `${challenger.toFixed(1)} against ${champion.toFixed(1)} ${unit}, ratio ${ratio.toFixed(3)}`;
        this.#deps.progress(`pair ${pair + 1} of at most ${this.#spec.pairs.max}: ${said}`);
        return;
      }
    }
  }

  async #attempt(pair: number): Promise<Record<Side, CountedRun> | null> {
    const w = this.#spec.workload;
    const seed = this.#seed();
    const requests = expandWorkload(w, seed, this.#deps.drawPrompt);
    const done: Partial<Record<Side, CountedRun>> = {};
    for (const side of ["challenger", "champion"] as const) {
      const dead = await deathOf(this.#arms[side].stack, 0);
      if (dead) this.#fail(side, dead);
    }
    for (const side of pairOrder(pair)) {
      const end = await this.#run(side, w, requests);
      if (end.kind === "failed") this.#fail(side, end);
      if (end.kind === "refused") {
        await this.#refuse(`pair ${pair + 1}`, side, end);
        return null;
      }
      const { load, quiet, conditions, devices } = end;
      const metrics = metricsOf(w, end.requests);
      const run = this.#runs.length + Object.keys(done).length;
      done[side] = {
        run,
        pair,
        side,
        seed,
        startedAt: load.startedAt,
        metrics,
        requests: end.requests,
        quiet,
        conditions,
        ...(devices ? { devices } : {}),
        self: load.self,
      };
    }
    const { challenger, champion } = done;
    if (!challenger || !champion) throw new Error("a pair with one side");
    for (const r of [challenger, champion].sort((a, b) => a.run - b.run)) {
      this.#runs.push(r);
      this.#served[r.side].push({ run: r.run, requests, verified: r.requests });
    }
    this.#seeds.push(seed);
    return { challenger, champion };
  }

  /** The reference works while both arms are stopped: it may use the device, and no clock runs. */
  async judge(): Promise<void> {
    const counts = this.#deps.probes ?? probesOf(this.#spec.purpose);
    const rng = createRng(randomBytes(16).toString("hex"));
    for (const side of ["challenger", "champion"] as const) {
      const { stack, engine } = this.#arms[side];
      await stack.pause();
      for (const probe of drawProbes(this.#served[side], counts[side], rng)) {
        const { signal } = this.#deps;
        signal.throwIfAborted();
        this.#deps.progress(`judging an answer of the ${side}`);
        const { ok, detail } = await this.#deps.judge(probe.promptIds, probe.servedIds, signal);
        this.#probes.push({ side, run: probe.run, request: probe.request, tokens: probe.servedIds.length, ok, detail });
        // An engine that we did not write is no cheat for computing another model than the file's (OpenVINO rounds Q4_1's minima to integers; llama.cpp's
        // ignore_eos forbids the end token): how far it is off is said by its accuracy row, and here in the samples.
        if (!ok && engine === null) {
          const message = `run ${probe.run}, request ${probe.request}: the served tokens are not the model's: ${detail}`;
          this.#fail(side, { code: "wrong-tokens", message, logTail: stack.logTail() });
        }
      }
    }
  }

  result(stop: Comparison["stop"]): BenchResult {
    const { pairs, confidence } = this.#spec;
    const interval = sequentialInterval(this.ratios, { ...pairs, confidence });
    const comparison: Comparison = { ...interval, confidence, pairs: this.ratios.length, ratios: this.ratios, stop };
    const bytes = samplesArtifact(this.#spec, comparison, this.#runs, this.#refused, this.#probes);
    const ref = { digest: sha256(bytes), bytes: bytes.length };
    const seeds = this.#seeds;
    const measured = (side: Side): UnsignedMeasurement =>
      measurementOf(
        this.#spec,
        this.#metric,
        this.#arms[side],
        this.#runs.filter((r) => r.side === side),
        this.#refused,
        ref,
        seeds,
        this.#deps,
      );
    return { comparison, challenger: measured("challenger"), champion: measured("champion"), samples: { bytes, ref } };
  }

  #run(side: Side, w: BenchSpec["workload"], requests: readonly BenchRequest[]): Promise<RunEnd> {
    const { workDir, decode, signal, device } = this.#deps;
    const slowdownOf = (probeMs: number): number => probeMs / (this.#bestProbeMs = Math.min(this.#bestProbeMs, probeMs));
    const { sensors = [] } = this.#deps;
    const deps = {
      workDir,
      decode,
      signal,
      limits: this.#limits,
      slowdownOf,
      processors: cpuList(device.cpus),
      sensors,
    };
    return runOnce(this.#arms[side], this.#arms[otherSide(side)].stack, w, requests, this.#spec.runLimitMs, deps);
  }

  async #refuse(where: string, side: Side, end: Extract<RunEnd, { kind: "refused" }>): Promise<void> {
    const { quiet, answered, refusal } = end;
    this.#refused.push({ where, side, reason: refusal.reason, quiet, answered });
    this.#deps.progress(`${where}: refused a run of the ${side}: ${refusal.reason}`);
    this.#giveUpIfNoisy(side, refusal);
    const { challenger, champion } = this.#arms;
    await Promise.all([challenger.stack.pause(), champion.stack.pause()]);
    const { device, signal, sensors } = this.#deps;
    await untilQuiet(cpuList(device.cpus), this.#limits, QUIET_WAIT_MS, signal);
    const own = (): ReadonlySet<number> => ownPids([challenger.stack, champion.stack]);
    if (device.kind !== "cpu") await Promise.all((sensors ?? []).map((s) => s.quiesce(own, QUIET_WAIT_MS, signal)));
  }

  #seed(): string {
    return this.#deps.drawSeed?.() ?? randomBytes(16).toString("hex");
  }

  #fail(side: Side, f: { code: string; message: string; logTail: string }): never {
    const { role } = this.#arms[side];
    const message = `${role} (${side}): ${f.message}`;
    if (side === "challenger") throw new JobError("candidate", f.code, message, f.logTail);
    throw new JobError("harness", `${role === "baseline" ? "baseline" : "champion"}-failed`, `${f.code}: ${message}`, f.logTail);
  }

  #giveUpIfNoisy(side: Side, last: Refusal): void {
    const spent = this.#refused.reduce((sum, r) => sum + (r.answered ? 1 : LATE_COSTS), 0);
    if (spent < (this.#deps.maxRefusals ?? MAX_REFUSALS)) return;
    const counted = (s: Side): boolean => this.#runs.some((r) => r.side === s);
    const reasons = this.#refused.map((r) => `${r.side}: ${r.reason}`).join("; ");
    // Only the generator was late, only beside this arm, always, on a quiet device: the arm takes the processors that its own load needs.
    const own = this.#refused.every((r) => r.side === side && r.quiet.stealPct <= 1 && r.quiet.foreignCpuPct <= this.#limits.foreignCpuPct);
    if (!last.device && own && !counted(side)) {
      this.#fail(side, { code: "starves-load", message: `the load generator never got to run in time: ${reasons}`, logTail: "" });
    }
    throw new JobError("device", "device-noisy", `refused runs: ${this.#refused.length}: ${reasons}`);
  }
}

/** Three a pair would triple the time of a comparison; eight in all leave room for one spell of a few seconds and still end in minutes. */
const MAX_REFUSALS = 8;
/** A refused run that went to its time limit cost minutes, so three of them are enough. */
const LATE_COSTS = 3;
