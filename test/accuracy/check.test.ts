import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CheckReport, Feature } from "../../shared/src/index.ts";
import {
  defaultSizes,
  mutateGguf,
  Pool,
  Reference,
  runCheck,
  type CheckLevel,
  type CheckOptions,
  type CheckSizes,
} from "../../gpu-agent/src/accuracy/index.ts";
import { loadTokenizer, readGguf, type Tokenizer } from "../../gpu-agent/src/tokenizer/index.ts";
import { weightsPath } from "../kit/weights.ts";
import { FakeCandidate, type Cheat, type FakeOptions } from "./fake-candidate.ts";
import { referenceExecutable } from "./kit.ts";
import { writeTinyGguf } from "./tiny-gguf.ts";

const shape = { dim: 32, ffn: 64, heads: 2, kvHeads: 1, layers: 2, vocab: 3000 };
const dir = mkdtempSync(join(tmpdir(), "check-"));
const model = join(dir, "tiny.gguf");
const other = join(dir, "other.gguf");
let executable: string;
let tokenizer: Tokenizer;
let pool: Pool;
let honest: Reference;
let skipping: Reference;
let fakes = 0;

beforeAll(async () => {
  executable = await referenceExecutable();
  // The beginning of the real vocabulary on a tiny random network.
  writeTinyGguf(model, shape, "check", readGguf(weightsPath()));
  await mutateGguf({ from: model, to: other, seed: "other" });
  tokenizer = loadTokenizer(model);
  honest = new Reference({ executable, model });
  skipping = new Reference({ executable, model: other });
  pool = Pool.open({ dir: join(dir, "pool"), modelDigest: "tiny", tokenizer, reference: new Reference({ executable, model }) });
}, 120_000);
afterAll(async () => {
  await Promise.all([honest.close(), skipping.close()]);
  rmSync(dir, { recursive: true, force: true });
});

/** Small enough for a suite of cheats; every part of the check is in it. */
const sizes = (level: CheckLevel): CheckSizes => ({
  ...defaultSizes(level, 1000),
  slice: level === "crown" ? { positions: 900, mid: 1, deep: 1 } : { positions: 300, mid: 1 },
  soloChats: 1,
  soloTokens: 12,
  chats: 4,
  chatTokens: 12,
  completions: 2,
  completionTokens: 5,
  burst: level === "crown" ? { concurrency: 24, prompts: 4, tokens: 12 } : { concurrency: 24, prompts: 0, tokens: 0 },
  totalMs: 60_000,
  stallMs: 20_000,
});

async function check(cheat: Cheat = {}, more: Partial<FakeOptions> = {}, options: Partial<CheckOptions> = {}): Promise<CheckReport> {
  const socketPath = join(dir, `s${fakes++}`);
  await using _fake = await FakeCandidate.start({ socketPath, tokenizer, reference: honest, cheat, ...more });
  const level = options.level ?? "screen";
  const report = await runCheck({
    socketPath,
    level,
    accuracy: "exact",
    pool,
    reference: { executable, model },
    tokenizer,
    features: Feature.options,
    sizes: () => sizes(level),
    ...options,
  });
  expect(CheckReport.parse(report)).toEqual(report);
  expect(JSON.stringify(report).length).toBeLessThan(64 * 1024);
  return report;
}
const failed = (report: CheckReport): string[] => report.gates.filter((g) => !g.ok).map((g) => g.name);

/** Serves the mutated file honestly, or goes on with other weights. */
const mutation = (follows: boolean): NonNullable<CheckOptions["mutation"]> => ({
  dir,
  serve: async (path) => {
    const reference = new Reference({ executable, model: follows ? path : model });
    const socketPath = join(dir, `m${fakes++}`);
    const fake = await FakeCandidate.start({ socketPath, tokenizer, reference });
    return {
      socketPath,
      stop: async () => {
        await fake[Symbol.asyncDispose]();
        await reference.close();
      },
    };
  },
});

describe("an honest candidate", { timeout: 120_000 }, () => {
  test("passes the screen, and its report says how many positions and tokens were judged", async () => {
    const report = await check();
    expect(failed(report)).toEqual([]);
    expect(report.ok).toBe(true);
    expect(report.firstFailure).toBeNull();
    expect(report.positions).toBeGreaterThanOrEqual(300);
    // Of the four chats two may end by themselves, at the first token even.
    expect(report.servedTokens).toBeGreaterThanOrEqual(8 + 12 + 2 * 12 + 2 + 10);
  });

  test("passes the crown, mutated weights among it", async () => {
    const report = await check({}, {}, { level: "crown", mutation: mutation(true) });
    expect(failed(report)).toEqual([]);
    expect(report.gates.map((g) => g.name)).toContain("mutated weights: mean KL");
  });
});

describe("a cheat is caught", { timeout: 120_000 }, () => {
  test("outputs that were canned", async () => {
    const report = await check({ id: (_id, index) => 1000 + index });
    expect(failed(report)).toEqual(
      expect.arrayContaining([expect.stringMatching(/^greedy, alone/), expect.stringMatching(/^greedy, at concurrency 8/)]),
    );
  });

  test("outputs kept from before the weights were changed", async () => {
    const report = await check({}, {}, { level: "crown", mutation: mutation(false) });
    expect(failed(report)).toEqual(expect.arrayContaining(["mutated weights: mean KL"]));
  });

  test("a network that computes something else", async () => {
    const report = await check({}, { reference: skipping });
    expect(failed(report)).toEqual(expect.arrayContaining(["mean KL", "top-1 agreement"]));
  });

  test("another network under load alone", async () => {
    const report = await check({}, { served: (inFlight) => (inFlight > 1 ? skipping : honest) });
    expect(failed(report)).toContain("greedy, at concurrency 8: largest gap to the reference's choice");
    expect(failed(report)).not.toContain("greedy, alone: largest gap to the reference's choice");
  });

  test("a score path that is not what is served", async () => {
    const report = await check({}, { served: () => skipping });
    expect(failed(report)).toEqual(
      expect.arrayContaining(["mean KL between reported log-probabilities and /v1/score", "mean KL of reported log-probabilities"]),
    );
    expect(failed(report)).not.toContain("mean KL");
  });

  test("log-probabilities that are made up", async () => {
    const scored = await check({ logprob: (l, path) => (path === "score" ? l * 0.9 - 0.1 : l) });
    expect(failed(scored)).toEqual(expect.arrayContaining(["mean KL", "mean KL between reported log-probabilities and /v1/score"]));
    const reported = await check({ logprob: (l, path) => (path === "completions" ? l - 0.7 : l) });
    expect(failed(reported)).toContain("mean KL of reported log-probabilities");
  });

  test("probabilities over 1, and an answer with null for numbers", async () => {
    expect((await check({ logprob: (l, path) => (path === "score" ? l + 0.5 : l) })).firstFailure!.candidate).toMatch(
      /add up to|log-probability/,
    );
    expect((await check({ logprob: (l, path) => (path === "score" ? NaN : l) })).firstFailure!.candidate).toMatch(/\/v1\/score/);
  });

  test("an answer that ends early", async () => {
    const report = await check({ stopAt: (max) => Math.ceil(max / 2) });
    expect(failed(report)).toEqual(
      expect.arrayContaining(["counts, usage, finish reason and text agree with the ids", expect.stringMatching(/^greedy/)]),
    );
  });

  test("ids that are padded or split over chunks", async () => {
    const rule = "counts, usage, finish reason and text agree with the ids";
    expect(failed(await check({ chunk: ([id]) => [[id!], [17]] }))).toContain(rule);
    expect(failed(await check({ chunk: ([id]) => [[id!, 0]] }))).toContain(rule);
    expect(failed(await check({ chunk: ([id]) => [[id! + 60_000]] }))).toContain(rule);
  });

  test("false usage, and text that is not what the ids say", async () => {
    const rule = "counts, usage, finish reason and text agree with the ids";
    expect(failed(await check({ usage: (n) => n * 2 }))).toContain(rule);
    expect(failed(await check({ text: (t) => `${t} ` }))).toContain(rule);
  });

  test("unknown fields that are accepted in silence", async () => {
    expect(failed(await check({ acceptUnknown: true }))).toEqual(["a request for what is not served gets a 400 that names the field"]);
  });

  test("stop strings that are ignored", async () => {
    expect(failed(await check({ ignoreStop: true }))).toContain("stop strings end an answer and are not shown");
  });

  test("a list of models without the one that is served, or of none", async () => {
    const rule = "/v1/models lists the model under the name that answers carry";
    expect(failed(await check({ models: ["another"] }))).toEqual([rule]);
    expect(failed(await check({ models: [] }))).toEqual(["every request is answered in the contract's shape"]);
  });

  test("a prompt that is text and is not read as it stands", async () => {
    // As many ids, in another order: only what follows them tells.
    const turned = await check({ promptText: (text) => tokenizer.decode(tokenizer.encode(text).reverse()) });
    expect(failed(turned)).toEqual(["a prompt that is text is read as its ids"]);
    const longer = await check({ promptText: (text) => `0 0 0 0 0 ${text}` });
    expect(failed(longer)).toEqual(["counts, usage, finish reason and text agree with the ids"]);
  });

  test("a seed that is ignored, in either way", async () => {
    const rule = "a seed gives the same sample again, another seed another";
    let draws = 0;
    const fresh = await check({ seed: () => draws++ });
    expect(failed(fresh)).toEqual([rule]);
    expect(fresh.firstFailure?.candidate).toMatch(/^seed \d+ gives the ids .+, then /);
    const fixed = await check({ seed: () => 7 });
    expect(failed(fixed)).toEqual([rule]);
    expect(fixed.firstFailure?.candidate).toMatch(/^the seeds \d+ to \d+ all give the ids /);
  });

  test("a generation that goes on after its client left", async () => {
    expect(failed(await check({ keepGoingMs: 4000 }))).toEqual(["a client that hangs up frees its place"]);
    let cpu = 0;
    expect(failed(await check({}, {}, { cpuSeconds: async () => (cpu += 1) }))).toEqual(["a client that hangs up frees its place"]);
  });

  test("silence: the check ends by itself, and says so", async () => {
    const quiet = { hijack: (path: string) => path === "/v1/score" };
    const report = await check(quiet, {}, { sizes: () => ({ ...sizes("screen"), stallMs: 1500 }) });
    expect(report.ok).toBe(false);
    expect(report.firstFailure!.candidate).toBe("the candidate sent no byte for 1500 ms");
  });

  test("a trickle without end, and a flood", async () => {
    const trickle: Cheat = {
      hijack: (path, res) => {
        if (path !== "/v1/chat/completions") return false;
        res.writeHead(200);
        const timer = setInterval(() => res.write(": still here\n\n"), 50);
        res.on("close", () => clearInterval(timer));
        return true;
      },
    };
    const slow = await check(trickle, {}, { sizes: () => ({ ...sizes("screen"), totalMs: 1500 }) });
    expect(slow.firstFailure!.candidate).toBe("the candidate's answers took over 1500 ms");
    const flood: Cheat = {
      hijack: (path, res) => {
        if (path !== "/v1/score") return false;
        const pour = (): void => {
          while (!res.destroyed && res.write("[".repeat(1 << 16)));
        };
        res.on("drain", pour);
        pour();
        return true;
      },
    };
    const report = await check(flood);
    expect(report.ok).toBe(false);
    expect(report.firstFailure!.candidate).toMatch(/over \d+ bytes/);
  });

  test("garbage, wrong shapes and dropped connections", async () => {
    const answer = (body: string): Cheat => ({ hijack: (path, res) => path === "/v1/score" && (res.end(body), true) });
    for (const body of ["<html>", "null", '{"logprobs":[[[1]]]}', '{"logprobs":"x"}', "\u0000\u001b[2J"]) {
      const report = await check(answer(body));
      expect(report.ok).toBe(false);
      expect(failed(report)).toContain("every request is answered in the contract's shape");
      expect(JSON.stringify(report)).not.toContain("\u001b");
    }
    expect((await check({ hijack: (path, res) => path === "/v1/completions" && (res.destroy(), true) })).ok).toBe(false);
    expect((await check({ hijack: (_path, res) => (res.destroy(), true) })).ok).toBe(false);
  });
});

describe("a stack.json that does not declare what is needed", { timeout: 120_000 }, () => {
  const declared = "stack.json declares what chat and the judge need";
  const without = (...features: Feature[]) => ({ features: Feature.options.filter((f) => !features.includes(f)) });

  test("is the candidate's failure, said by name, and nothing else is asked", async () => {
    const asked: string[] = [];
    const report = await check({ hijack: (path) => (asked.push(path), false) }, {}, without("score", "cancel"));
    expect(failed(report)).toEqual([declared]);
    expect(report.gates[0]).toMatchObject({ value: 2, unit: "violations" });
    expect(report.firstFailure?.candidate).toBe("stack.json does not declare cancel, which chat needs");
    expect(asked).toEqual([]);
  });

  test("has its fields refused by name", async () => {
    const asked: string[] = [];
    const refusing = (param: string): Cheat => ({
      hijack: (path, res) => {
        asked.push(path);
        const error = { message: `${param} is not served`, type: "invalid_request_error", param };
        return (res.writeHead(400).end(JSON.stringify({ error })), true);
      },
    });
    expect(failed(await check(refusing("logprobs"), {}, without("logprobs")))).toEqual([declared]);
    expect(failed(await check(refusing("stream_options"), {}, without("usage")))).toEqual([declared]);
    expect(asked).toEqual(["/v1/completions", "/v1/chat/completions"]);
    const unnamed = "a request for what is not served gets a 400 that names the field";
    expect(failed(await check(refusing("something"), {}, without("seed")))).toEqual([declared, unnamed]);
  });

  test("and serves it all the same", async () => {
    const report = await check({}, {}, without("stop", "logprobs"));
    expect(report.gates.filter((g) => !g.ok).map((g) => [g.name, g.value])).toEqual([
      [declared, 2],
      ["a request for what is not served gets a 400 that names the field", 2],
    ]);
  });
});

describe("the check itself", () => {
  test("throws the caller's reason when it is cancelled, and not because of the candidate", async () => {
    const abort = new AbortController();
    const running = check({ hijack: () => (setImmediate(() => abort.abort(new Error("lease lost"))), true) }, {}, { signal: abort.signal });
    await expect(running).rejects.toThrow("lease lost");
  });

  test("does not crown without mutated weights", async () => {
    await expect(check({}, {}, { level: "crown" })).rejects.toThrow(/mutated weights/);
  });
});
