import { expect, it } from "vitest";
import { metricsOf } from "../../gpu-agent/src/bench/metrics.ts";
import { verifyRun, type Verdict } from "../../gpu-agent/src/bench/verify.ts";
import { closed, load, loadPlan, promptOf } from "./bench-kit.ts";
import { textOf, type Trick } from "./fake-candidate.ts";
import { startFake } from "./fake-stack.ts";

const TOKENS = 12;

async function serve(trick: Trick): Promise<Verdict> {
  await using fake = await startFake({ firstMs: 40, tokenMs: 10, trick });
  const r = await load(loadPlan(fake.socketPath, 8, TOKENS));
  const expected = r.records.map((x) => ({ promptIds: [...Buffer.from(promptOf(x.index))], outputTokens: TOKENS }));
  return verifyRun(r.records, expected, textOf);
}

function metrics(verdict: Verdict): ReturnType<typeof metricsOf> {
  if (!verdict.ok) throw new Error(`${verdict.code}: ${verdict.message}`);
  return metricsOf(closed(4, 8, TOKENS), verdict.requests);
}

it.each([
  ["pad", "wrong-token-count"],
  ["repeat", "wrong-token-count"],
  ["short", "wrong-token-count"],
  ["false-usage", "cheat-usage"],
  ["wrong-text", "cheat-text"],
  ["no-done", "broken-stream"],
] as const)("an answer with %s is the candidate's failure %s", async (trick, code) => {
  const verdict = await serve(trick);
  expect(verdict).toMatchObject({ ok: false, code });
});

it("splitting each token over two events, or sending a blank one first, changes no metric", async () => {
  const [honest, split, blank] = [metrics(await serve("none")), metrics(await serve("split")), metrics(await serve("blank-first"))];
  // 4 clients, one token each per 10 ms after 40 ms: 12 tokens in 150 ms.
  for (const m of [honest, split, blank]) {
    expect(m.output_tokens_per_second).toBeGreaterThan(150);
    expect(m.output_tokens_per_second).toBeLessThan(340);
    expect(m.ttft_p50).toBeGreaterThan(36);
  }
});

it("characters that are cut off at the end, or counted differently while broken, are no lie", () => {
  const record = {
    index: 0,
    connection: 0,
    scheduledMs: 0,
    sentMs: 0,
    firstByteMs: 1,
    endMs: 9,
    status: 200,
    finish: "length",
    usage: { promptTokens: 1, completionTokens: 2 },
    done: true,
    error: null,
  };
  const verdict = (served: string, decoded: string): boolean =>
    verifyRun([{ ...record, chunks: [{ atMs: 5, ids: [1, 2], text: served }] }], [{ promptIds: [1], outputTokens: 2 }], () => decoded).ok;
  expect(verdict("né", "né")).toBe(true);
  expect(verdict("n", "n\uFFFD")).toBe(true);
  expect(verdict("a\uFFFD\uFFFDb", "a\uFFFDb")).toBe(true);
  expect(verdict("ab", "a\uFFFDb")).toBe(false);
  expect(verdict("n", "né")).toBe(false);
});
