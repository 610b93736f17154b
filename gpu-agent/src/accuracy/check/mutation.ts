import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { mutateFolder } from "../mutate-folder.ts";
import { mutateGguf } from "../mutate-gguf.ts";
import { planSequence } from "../pool/sequence.ts";
import type { ScoredSequence } from "../pool/record.ts";
import { Reference, type ReferenceOptions } from "../reference.ts";
import { Candidate } from "./candidate.ts";
import { concurrently } from "./concurrently.ts";
import { attempt, drawPrompt, textOf, type CheckContext } from "./context.ts";
import { divergence } from "./divergence.ts";
import { GreedyRun, judgeGreedy } from "./greedy.ts";
import { compareSequence, type PositionResult } from "./teacher-forced.ts";

export interface MutationOptions {
  readonly reference: ReferenceOptions;
  /** Where the mutated file is put while it is needed; the candidate's sandbox must be able to read it. */
  readonly dir: string;
  /** Starts the candidate's frozen build with other weights. */
  readonly serve: (modelPath: string) => Promise<{ readonly socketPath: string; stop(): Promise<void> }>;
}

const SEQUENCES = 2;
const CHATS = 4;
const CHAT_TOKENS = 24;
/** Mutated weights have outliers that calibrated rounding does not expect: more error is allowed, far less than the mutation makes. */
const SLACK = 5;
/** The mutation must move the reference itself by so many times the limit, or following it would prove nothing. */
const MIN_SEPARATION = 20;
const DRAWS = 4;

/** Serves weights that nobody has seen and requires the candidate to follow the reference on them. Gates are named "mutated weights: …". */
export async function checkMutation(ctx: CheckContext, options: MutationOptions): Promise<void> {
  const folder = statSync(options.reference.model).isDirectory();
  const model = join(options.dir, `mutated-${randomUUID()}${folder ? "" : ".gguf"}`);
  const limit = ctx.limits.meanKl * SLACK;
  const reference = new Reference({ ...options.reference, model });
  try {
    const sequences = await drawMutation(ctx, options.reference.model, model, reference, limit * MIN_SEPARATION);
    const server = await options.serve(model);
    try {
      using candidate = new Candidate(server.socketPath, ctx.watch);
      await judgeMutation(
        { ...ctx, candidate, reference, limits: { ...ctx.limits, meanKl: limit, greedyMargin: 2 * ctx.limits.greedyMargin } },
        sequences,
      );
    } finally {
      await server.stop();
    }
  } finally {
    await reference.close();
    await rm(model, { recursive: true, force: true });
  }
}

/** Mutates until the two references differ by `separation` nat on the drawn sequences. */
async function drawMutation(
  ctx: CheckContext,
  from: string,
  to: string,
  mutated: Reference,
  separation: number,
): Promise<ScoredSequence[]> {
  for (let draw = 0; draw < DRAWS; draw++) {
    const seed = `${ctx.rng.next()} ${ctx.rng.next()}`;
    await (statSync(from).isDirectory() ? mutateFolder : mutateGguf)({ from, to, seed });
    const planned = Array.from({ length: SEQUENCES }, (_, i) => planSequence(seed, "short", i, ctx.tokenizer));
    const scores = await mutated.score(planned, ctx.signal);
    const original = await ctx.reference.score(
      planned.map((p, i) => ({
        ...p,
        extras: Array.from(scores[i]!.ids, (id, k) => ({ position: p.from + Math.floor(k / scores[i]!.top), id })),
      })),
      ctx.signal,
    );
    const kls = scores.flatMap((s, i) =>
      Array.from({ length: s.positions }, (_, p) => {
        const row = [p * s.top, (p + 1) * s.top] as const;
        return divergence({
          ids: s.ids.subarray(...row),
          reference: s.logprobs.subarray(...row),
          candidate: original[i]!.extras.subarray(...row),
        });
      }),
    );
    if (kls.reduce((a, b) => a + b, 0) / kls.length >= separation) return planned.map((p, i) => ({ ...p, scores: scores[i]! }));
    // The process maps the file that is about to be replaced.
    await mutated.restart();
  }
  throw new Error(`no mutation of ${DRAWS} moved the reference by ${separation} nat`);
}

async function judgeMutation(ctx: CheckContext, sequences: readonly ScoredSequence[]): Promise<void> {
  const { candidate, findings, limits, tokenizer } = ctx;
  await attempt(ctx, "mutated weights: health", () => candidate.expectHealthy());
  const results: PositionResult[] = [];
  const greedy = new GreedyRun(ctx, "mutated weights");
  await concurrently(ctx.sizes.concurrency, [
    ...sequences.map(
      (s) => () =>
        attempt(ctx, "mutated weights: score", async () => void results.push(...(await compareSequence(candidate, s, textOf(tokenizer))))),
    ),
    ...Array.from({ length: CHATS }, () => greedy.task(drawPrompt(ctx), { maxTokens: CHAT_TOKENS, ignoreEos: true })),
  ]);
  const mean = results.reduce((n, r) => n + r.kl, 0) / Math.max(1, results.length);
  const [worst] = results.toSorted((a, b) => b.kl - a.kl);
  const ok = results.length > 0 && mean <= limits.meanKl;
  findings.gate(
    { name: "mutated weights: mean KL", value: results.length > 0 ? mean : Infinity, unit: "nat", limit: `≤ ${limits.meanKl}`, ok },
    worst,
  );
  await judgeGreedy(ctx, [greedy], "");
}
