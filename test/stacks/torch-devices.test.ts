import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseJson, StackManifest } from "@vibeserve/shared";
import { describe, expect, onTestFinished, test } from "vitest";
import { readStat, readTable } from "../../gpu-agent/src/process/proc-table.ts";
import { findPython, type SandboxPython } from "../../gpu-agent/src/sandbox/python.ts";
import { startStack } from "../../gpu-agent/src/serve/start-stack.ts";
import { ask, bubblewrap } from "../agent/kit.ts";
import { builtPythonStack, pythonWith, servePythonStack, testPackages, type PythonWith } from "../kit/python-stack.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { writeTinyCheckpoint } from "../kit/tiny-checkpoint.ts";
import { numbersAt, ServedStack } from "./served.ts";
import { tiny, type Matrix } from "./tiny-model.ts";
import { twinTests } from "./suites/twin.ts";

/** A Python with these modules whose torch has gloo. */
function pythonWithGloo(...modules: string[]): PythonWith | null {
  const found = pythonWith("torch", "numpy", "tokenizers", ...modules);
  const distributed = "import sys, torch.distributed as d; sys.exit(not (d.is_available() and d.is_gloo_available()))";
  const asked = found && spawnSync(found.command, ["-c", distributed], { env: { ...process.env, PYTHONPATH: found.path } });
  return asked?.status === 0 ? found : null;
}

/** Skills need torch 2.4, the seed alone 1.13. */
const skilled = pythonWithGloo("torch.nn.attention");
const python = skilled ?? pythonWithGloo();

const SLOTS = ["torch-batched-attention", "torch-fused-projections"];
const over = (devices: number): string[] => ["--devices", String(devices)];
const ids = Array.from({ length: 40 }, (_, i) => 3 + ((i * 37 + 11) % 259));

/** Tensors that Llama's checkpoints lack. */
function beside(what: string): Map<string, Matrix> {
  const tensors = new Map<string, Matrix>();
  const add = (name: string, rows: number, cols: number, middle = 0): void => {
    const values = Float64Array.from({ length: rows * cols }, (_, i) => middle + 0.5 * Math.sin(i * 7.3 + tensors.size));
    tensors.set(name, { rows, cols, values });
  };
  const { dim, headDim, heads, kvHeads, vocab } = tiny;
  for (let layer = 0; layer < tiny.layers; layer++) {
    const of = `model.layers.${layer}.self_attn.`;
    if (what === "norms") for (const n of ["q", "k"]) add(`${of}${n}_norm.weight`, 1, headDim, 1);
    else
      for (const [n, size] of Object.entries({ q: heads * headDim, k: kvHeads * headDim, v: kvHeads * headDim, o: dim }))
        add(`${of}${n}_proj.bias`, 1, size);
  }
  if (what === "biases") add("lm_head.weight", vocab, dim);
  return tensors;
}

const children = (pid: number): number[] => readTable().flatMap((p) => (p.ppid === pid ? [p.pid] : []));

/** Until none of them runs; a parent that nobody waits for them in leaves their names in the table. */
async function gone(pids: readonly number[]): Promise<void> {
  while (pids.some((pid) => !["Z", undefined].includes(readStat(pid)?.state))) await pause(20);
}

/** Greedy ids, and log-probabilities as they are served and scored. */
async function answers(program: string, model: string, devices: number): Promise<{ ids: number[][]; logprobs: number[] }> {
  await using stack = await ServedStack.start(program, model, undefined, over(devices));
  const body = { prompt: ids, max_tokens: 24, temperature: 0, logprobs: 4, ignore_eos: true };
  const [scored, ...served] = await Promise.all([
    stack.post("/v1/score", { sequences: [ids], query: [ids.map(() => [3, 70, 140, 261])] }),
    stack.post("/v1/completions", { ...body, prompt: [7] }),
    stack.post("/v1/completions", body),
  ]);
  return {
    ids: served.map((answer) => numbersAt(answer, "choices", 0, "token_ids")),
    logprobs: [
      ...served.flatMap((answer) => numbersAt(answer, "choices", 0, "logprobs", "token_logprobs")),
      ...ids.flatMap((_, i) => numbersAt(scored, "logprobs", 0, i)),
    ],
  };
}

/** What a stack says that does not come to serve. */
function refusal(program: string, dir: string, devices: number): string {
  const words = ["--socket", join(dir, "s"), "--model", join(dir, "tiny"), "--cpus", "0,1", ...over(devices)];
  const { status, stderr } = spawnSync(program, words, { encoding: "utf8" });
  expect(status).toBe(1);
  return stderr;
}

/** On the tiny model over two devices; `streaming` is a request that goes on until the stack ends, with what became of it. */
async function busy(): Promise<{ stack: ServedStack; others: number[]; streaming: Promise<unknown> }> {
  const stack = await servePythonStack("torch", python!, { words: over(2) });
  onTestFinished(() => stack[Symbol.asyncDispose]());
  const chunks = stack.stream("/v1/completions", { prompt: ids, max_tokens: 4000, temperature: 0, ignore_eos: true });
  await chunks.next();
  const rest = async (): Promise<void> => {
    while ((await chunks.next()).done !== true);
  };
  const others = children(stack.pid);
  expect(others).toHaveLength(1);
  return { stack, others, streaming: rest().catch((error: unknown) => error) };
}

/** The Python as a sandbox shows it. Of the system's an environment, since a sandbox shows no packages of the tests: with the one that the stack needs and Debian lacks. */
async function shownPython(dir: string): Promise<SandboxPython | null> {
  const shown = (command: string): Promise<SandboxPython | null> => findPython(command, join(dir, "agent")).catch(() => null);
  const [own, made] = [await shown(python!.command), join(dir, "environment/bin/python3")];
  if (own) return own;
  execFileSync(python!.command, ["-m", "venv", "--without-pip", "--system-site-packages", join(dir, "environment")]);
  const site = execFileSync(made, ["-c", "import site; print(site.getsitepackages()[0])"], { encoding: "utf8" }).trim();
  const lacking = join(testPackages(), "tokenizers");
  if (existsSync(lacking)) cpSync(lacking, join(site, "tokenizers"), { recursive: true });
  return spawnSync(made, ["-I", "-c", "import numpy, tokenizers, torch"]).status === 0 ? shown(made) : null;
}

describe.skipIf(python === null)("stacks/torch over several devices, by gloo (skipped where no Python has torch and it)", () => {
  describe("four, more than there are heads of keys, over which the vocabulary is not cut evenly", () =>
    twinTests(() => servePythonStack("torch", python!, { words: over(4) })));
  describe.skipIf(skilled === null)(`two, with ${SLOTS.join(" and ")}`, () =>
    twinTests(() => servePythonStack("torch", skilled!, { skills: SLOTS, words: over(2) })),
  );

  test.each(["biases", "norms"])("%s answer over two as on one, apart, and joined where skills run", { timeout: 120_000 }, async (what) => {
    using dir = tempDir("devices");
    const model = join(dir.path, "tiny");
    writeTinyCheckpoint(model, undefined, 1, beside(what));
    const made: { ids: number[][]; logprobs: number[] }[] = [];
    for (const [i, skills] of (skilled ? [[], SLOTS] : [[]]).entries()) {
      const program = await builtPythonStack("torch", python!, join(dir.path, String(i)), skills);
      for (const devices of [1, 2]) made.push(await answers(program, model, devices));
    }
    const [one] = made;
    expect(new Set(one!.ids.flat()).size).toBeGreaterThan(4);
    for (const { ids, logprobs } of made) {
      expect(ids).toEqual(one!.ids);
      expect(Math.max(...logprobs.map((value, i) => Math.abs(value - one!.logprobs[i]!)))).toBeLessThan(1e-4);
    }
  });

  test("a rank loads its share of each matrix, and all shares are the checkpoint", () => {
    using dir = tempDir("shares");
    writeTinyCheckpoint(join(dir.path, "tiny"), undefined, 1, beside("biases"));
    const script = join(import.meta.dirname, "torch/shares.py");
    const env = { ...process.env, PYTHONPATH: python!.path };
    const stack = join(import.meta.dirname, "../../stacks/torch");
    const said = execFileSync(python!.command, [script, stack, join(dir.path, "tiny")], { env, encoding: "utf8" });
    expect(said).toBe("ok\n");
  });

  test.each([
    [3, /4 heads with 2 of keys and values can't be cut for 3 devices; for 1, 2, 4 they can/],
    [0, /can't be cut for 0 devices/],
  ])("%i devices are refused at the start, with what could be", async (devices, why) => {
    using dir = tempDir("refused");
    writeTinyCheckpoint(join(dir.path, "tiny"));
    expect(refusal(await builtPythonStack("torch", python!, dir.path), dir.path, devices)).toMatch(why);
  });

  test.skipIf(skilled === null).each([[["cuda-graph-decode"]], [["cuda-graph-decode", "async-scheduling"]]])(
    "a scheduler with graphs is refused at the start: %j",
    async (more) => {
      using dir = tempDir("graphs");
      writeTinyCheckpoint(join(dir.path, "tiny"));
      const program = await builtPythonStack("torch", python!, dir.path, [...SLOTS, ...more]);
      expect(refusal(program, dir.path, 2)).toContain("steps over 2 devices can't be captured as CUDA graphs");
    },
  );

  test("a rank that is killed ends the stack in the midst of a step, and no process stays", { timeout: 60_000 }, async () => {
    const { stack, others, streaming } = await busy();
    process.kill(others[0]!, "SIGKILL");
    expect(await stack.exited).toBe(1);
    expect(await streaming).toBeInstanceOf(Error);
    await gone(others);
  });

  test("with rank 0 killed the others end, also one that is stopped", { timeout: 60_000 }, async () => {
    for (const stopped of [false, true]) {
      const { stack, others } = await busy();
      if (stopped) process.kill(others[0]!, "SIGSTOP");
      process.kill(stack.pid, "SIGKILL");
      expect(await stack.exited).toBeNull();
      await gone(others);
    }
  });

  test("when it is asked to end all ranks do, also where all of them are asked", { timeout: 60_000 }, async () => {
    const { stack, others } = await busy();
    for (const pid of others) process.kill(pid, "SIGTERM");
    stack.terminate();
    expect(await stack.exited).toBe(0);
    await gone(others);
  });

  test("in the agent's sandbox, which has no network but the loopback's", { timeout: 120_000 }, async (context) => {
    using dir = tempDir("devices-sandbox");
    const outside = await shownPython(dir.path);
    context.skip(outside === null, "a sandbox would not show this Python with its packages");
    chmodSync(dir.path, 0o755);
    writeTinyCheckpoint(join(dir.path, "tiny"));
    await builtPythonStack("torch", python!, dir.path);
    const build = join(dir.path, "build");
    mkdirSync(build);
    copyFileSync(join(dir.path, "stack"), join(build, "stack"));
    const manifest = StackManifest.parse(parseJson(readFileSync(join(dir.path, "tree/stack.json"), "utf8")));
    writeFileSync(
      join(build, "stack.json"),
      JSON.stringify({ ...manifest, serve: manifest.serve.map((word) => word.replace("${DEVICES}", "2")) }),
    );
    const sandbox = { ...(await bubblewrap()), python: outside! };
    const spec = {
      buildDir: build,
      modelPath: join(dir.path, "tiny"),
      cpus: "0,1",
      healthTimeoutMs: 60_000,
      provenance: "model" as const,
    };
    const stack = await startStack({ sandbox }, spec);
    try {
      const body = { prompt: ids, max_tokens: 4, ignore_eos: true };
      expect(await ask(stack.socketPath, "/v1/completions", body)).toMatchObject({ usage: { completion_tokens: 4 } });
    } finally {
      await stack.stop();
    }
  });
});
