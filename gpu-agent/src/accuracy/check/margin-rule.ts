import type { Reference } from "../reference.ts";
import type { Sequence } from "../reference-protocol.ts";
import { topFive } from "./divergence.ts";

export interface ServedSequence {
  readonly name: string;
  readonly prompt: readonly number[];
  readonly served: readonly number[];
  /** The generation ended by itself: the end token is judged as one more served id. */
  readonly endedBy: number | null;
}
export interface MarginVerdict {
  readonly name: string;
  /** The largest lead of the reference's first choice over a served id, in nat. */
  readonly worstGap: number;
  /** Served ids (the end token included) beyond the margin. */
  readonly violations: number;
  readonly judged: number;
  readonly where: string;
  readonly candidate: string;
  readonly reference: string;
}

/** Log-probability gap of each served id to the reference's first choice on the served prefix, and what is beyond `margin`. */
export async function judgeServed(
  reference: Reference,
  answers: readonly ServedSequence[],
  margin: number,
  text: (id: number) => string,
  signal?: AbortSignal,
): Promise<MarginVerdict[]> {
  const jobs = answers
    .map((a) => ({ a, ids: a.endedBy === null ? a.served : [...a.served, a.endedBy] }))
    .filter(({ ids }) => ids.length > 0)
    .map(({ a, ids }) => ({ a, ids, sequence: { tokens: [...a.prompt, ...ids], from: a.prompt.length - 1 } satisfies Sequence }))
    // Neighbours that start alike share the reference's work.
    .sort((x, y) => compareIds(x.sequence.tokens, y.sequence.tokens));
  const scores = await reference.score(
    jobs.map((j) => j.sequence),
    signal,
  );
  return jobs.map(({ a, ids }, i) => {
    const s = scores[i]!;
    let [worst, worstGap, violations] = [0, 0, 0];
    ids.forEach((_, p) => {
      const gap = s.logprobs[p * s.top]! - s.next[p]!;
      if (gap > margin) violations++;
      if (gap > worstGap) [worst, worstGap] = [p, gap];
    });
    const at = worst * s.top;
    const id = ids[worst]!;
    return {
      name: a.name,
      worstGap,
      violations,
      judged: ids.length,
      where: `${a.name}, served token ${worst}`,
      candidate: `${id} ${JSON.stringify(text(id))} ${s.next[worst]!.toFixed(3)} (by the reference)`,
      reference: topFive(s.ids.subarray(at, at + 5), s.logprobs.subarray(at, at + 5), text),
    };
  });
}

function compareIds(a: readonly number[], b: readonly number[]): number {
  const i = a.findIndex((id, k) => id !== b[k]);
  return i < 0 ? a.length - b.length : a[i]! - (b[i] ?? -1);
}

/** The margin rule for a single served answer, as the benchmark's hidden probes ask it. */
export function greedyJudge(
  reference: Reference,
  margin: number,
  text: (id: number) => string,
): (promptIds: readonly number[], servedIds: readonly number[], signal?: AbortSignal) => Promise<{ ok: boolean; detail: string }> {
  return async (prompt, served, signal) => {
    const [v] = await judgeServed(reference, [{ name: "answer", prompt, served, endedBy: null }], margin, text, signal);
    if (!v) return { ok: false, detail: "nothing was served" };
    if (v.violations === 0) return { ok: true, detail: `largest gap ${v.worstGap.toFixed(3)} nat` };
    return { ok: false, detail: `${v.where}: ${v.candidate} is ${v.worstGap.toFixed(3)} nat behind; the reference says ${v.reference}` };
  };
}
