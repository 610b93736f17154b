import { randomBytes } from "node:crypto";
import { createRng, type CheckReport, type Feature } from "@vibeserve/shared";
import type { Tokenizer } from "../../tokenizer/index.ts";
import type { Pool } from "../pool/pool.ts";
import { Reference, type ReferenceOptions } from "../reference.ts";
import { Candidate } from "./candidate.ts";
import { CandidateFault } from "./candidate-fault.ts";
import { concurrently } from "./concurrently.ts";
import { ANSWERS_RULE, attempt, drawPrompt, textOf, type CheckContext } from "./context.ts";
import { checkContract } from "./contract.ts";
import { checkFeatures } from "./features.ts";
import { Findings } from "./findings.ts";
import { ACCURACY_LIMITS, type AccuracyLimits } from "./gates.ts";
import { GreedyRun, judgeGreedy } from "./greedy.ts";
import { LogprobRun } from "./logprobs.ts";
import { checkMutation, type MutationOptions } from "./mutation.ts";
import { defaultSizes, type CheckLevel, type CheckSizes } from "./sizes.ts";
import { compareSequence, judgePositions, type PositionResult } from "./teacher-forced.ts";
import { Watch, type WatchLimits } from "./watch.ts";

export interface CheckOptions {
  readonly socketPath: string;
  readonly level: CheckLevel;
  readonly accuracy: "exact" | "lossy";
  /** Hidden pool, or the public set at level "public". */
  readonly pool: Pool;
  readonly reference: ReferenceOptions;
  readonly tokenizer: Tokenizer;
  /** What the candidate's stack.json declares; null: a baseline, which is judged as far as it goes. */
  readonly features: readonly Feature[] | null;
  /** Required to crown: how the same build is served with other weights. */
  readonly mutation?: Omit<MutationOptions, "reference">;
  /** CPU seconds of the candidate's process tree so far: shows whether a disconnected request really ended. */
  readonly cpuSeconds?: () => Promise<number>;
  readonly signal?: AbortSignal;
  readonly onPhase?: (phase: string) => void;
  readonly limits?: AccuracyLimits;
  readonly sizes?: (tokensPerS: number) => CheckSizes;
}

/** Tokens of the first chat, which tells whether the candidate answers at all and how fast. */
const FIRST_CHAT_TOKENS = 8;
/** A hanging candidate shows here mostly, so the limit is short: the scalar seed takes 4 s alone on a machine, 10 s on a crowded one. */
const FIRST_ANSWER_MS = 60_000;

/**
 * Judges a served candidate. Whatever it answers, or fails to, becomes a gate of the report. Throws the signal's reason, ReferenceError (the
 * harness's), and what `mutation.serve` throws; never because of what the candidate sent.
 */
export async function runCheck(options: CheckOptions): Promise<CheckReport> {
  const { level, signal } = options;
  if (level === "crown" && !options.mutation) throw new Error("crowning needs a way to serve mutated weights");
  const findings = new Findings();
  const reference = new Reference(options.reference);
  try {
    await check(options, findings, reference);
  } catch (error) {
    signal?.throwIfAborted();
    if (!(error instanceof CandidateFault)) throw error;
    findings.rule(ANSWERS_RULE, [error.message], "the check");
  } finally {
    await reference.close();
  }
  return findings.report(level);
}

async function check(options: CheckOptions, findings: Findings, reference: Reference): Promise<void> {
  const { level, tokenizer, signal, onPhase = () => undefined } = options;
  const sizesFor = options.sizes ?? ((tokensPerS: number) => defaultSizes(level, tokensPerS));
  const limits = options.limits ?? ACCURACY_LIMITS[options.accuracy];
  const rng = createRng(randomBytes(16).toString("hex"));
  const context = (sizes: CheckSizes, limit: WatchLimits): CheckContext & Disposable => {
    const watch = new Watch(limit, signal);
    const candidate = new Candidate(options.socketPath, watch);
    const end = (): void => [candidate, watch].forEach((d) => d[Symbol.dispose]());
    return { candidate, findings, limits, sizes, tokenizer, reference, rng, watch, signal, [Symbol.dispose]: end };
  };

  onPhase("first answer");
  const slowest = sizesFor(0);
  const atFirst = (): CheckContext & Disposable =>
    context(slowest, { totalMs: Math.min(FIRST_ANSWER_MS, slowest.totalMs), stallMs: Math.min(FIRST_ANSWER_MS, slowest.stallMs) });
  if (options.features) {
    using declaring = atFirst();
    if (!(await checkFeatures(declaring, options.features))) return;
  }
  const started = performance.now();
  const { run: first, tokens } = await firstAnswer(atFirst());
  const sizes = sizesFor(tokens / ((performance.now() - started) / 1000));
  using ctx = context(sizes, sizes);
  const { candidate } = ctx;

  onPhase("served alone");
  const prompts = Array.from({ length: Math.max(sizes.chats, sizes.soloChats, sizes.completions) }, () => drawPrompt(ctx));
  const solo = new GreedyRun(ctx, "alone");
  for (const p of prompts.slice(0, sizes.soloChats)) await solo.task(p, { maxTokens: sizes.soloTokens, ignoreEos: true })();

  onPhase(`served at concurrency ${sizes.concurrency}`);
  const slice = await options.pool.take(sizes.slice, { signal, reference });
  const results: PositionResult[] = [];
  const crowd = new GreedyRun(ctx, `at concurrency ${sizes.concurrency}`);
  const logprobs = new LogprobRun(ctx);
  const tasks = [
    // Half of the chats may end by themselves: an early stop shows there, a wrong count in the others.
    ...prompts.slice(0, sizes.chats).map((p, i) => crowd.task(p, { maxTokens: sizes.chatTokens, ...(i % 2 === 0 && { ignoreEos: true }) })),
    ...prompts.slice(0, sizes.completions).map((p) => logprobs.task(p, sizes.completionTokens)),
    ...slice.sequences.map(
      (s) => () =>
        attempt(ctx, `score, ${s.name}`, async () => void results.push(...(await compareSequence(candidate, s, textOf(tokenizer))))),
    ),
  ];
  shuffle(tasks, ctx);
  await concurrently(sizes.concurrency, tasks);
  findings.positions = results.length;
  judgePositions(findings, results, limits);

  const runs = [first, solo, crowd];
  if (sizes.burst.prompts > 0) {
    onPhase(`served at concurrency ${sizes.burst.concurrency}`);
    const burst = new GreedyRun(ctx, `at concurrency ${sizes.burst.concurrency}`);
    const { prompts: count, tokens } = sizes.burst;
    const drawn = Array.from({ length: count }, () => drawPrompt(ctx));
    // The same prompt twice with other lengths: an answer kept for a prompt would have the wrong one.
    const twice = drawn.flatMap((p) => [tokens, tokens >> 1].map((maxTokens) => burst.task(p, { maxTokens, ignoreEos: true })));
    await concurrently(sizes.burst.concurrency, twice);
    runs.push(burst);
  }
  onPhase("contract");
  await checkContract(ctx, options.cpuSeconds);

  onPhase("reference");
  await judgeGreedy(ctx, runs);
  await logprobs.judge();
  if (level === "crown" && options.mutation) {
    onPhase("mutated weights");
    await checkMutation(ctx, { ...options.mutation, reference: options.reference });
  }
}

/** Health and one short chat: the run with its answer, and the tokens read and served. */
async function firstAnswer(context: CheckContext & Disposable): Promise<{ run: GreedyRun; tokens: number }> {
  using ctx = context;
  await ctx.candidate.expectHealthy();
  const prompt = drawPrompt(ctx);
  const run = new GreedyRun(ctx, "first answer");
  await run.task(prompt, { maxTokens: FIRST_CHAT_TOKENS, ignoreEos: true })();
  return { run, tokens: prompt.ids.length + FIRST_CHAT_TOKENS };
}

function shuffle(list: unknown[], { rng }: CheckContext): void {
  for (let i = list.length - 1; i > 0; i--) {
    const j = rng.int(i + 1);
    [list[i], list[j]] = [list[j], list[i]];
  }
}
