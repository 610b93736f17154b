import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sha256, type BaselineSpec, type Outcome } from "@vibeserve/shared";
import { afterEach, expect, it, vi } from "vitest";
import { baselineHandler, startBaselineArm, type BaselineDeps } from "../../gpu-agent/src/baseline/baseline-job.ts";
import { installedEngines } from "../../gpu-agent/src/baseline/installed-engines.ts";
import { sweepSettings } from "../../gpu-agent/src/baseline/sweep.ts";
import { UNLIMITED } from "../../gpu-agent/src/bench/quiet.ts";
import { JobError } from "../../gpu-agent/src/worker/job-error.ts";
import { closed, drawFakePrompt, jobContext, judgeFake, jobOf, workFolder } from "../bench/bench-kit.ts";
import { textOf, type FakeSpec } from "../bench/fake-candidate.ts";

const FAKE = fileURLToPath(new URL("../bench/fake-candidate.ts", import.meta.url));
const metric = { name: "output_tokens_per_second", unit: "tok/s", direction: "maximize" } as const;
const spec: BaselineSpec = {
  kind: "baseline",
  engine: "fake-engine",
  model: { name: "fake", file: "fake.gguf", sha256: sha256("fake") },
  workload: closed(2, 4, 4),
  metric,
};

const setting = (name: string, fake: FakeSpec): object => ({ name, args: ["${SOCKET}", JSON.stringify(fake)], env: {} });
const SWEEP = [
  setting("as-shipped", { firstMs: 20, tokenMs: 12 }),
  setting("broken", { firstMs: 5, tokenMs: 1, trick: "refuse" }),
  setting("fast", { firstMs: 5, tokenMs: 3 }),
  setting("lying", { firstMs: 1, tokenMs: 1, trick: "pad" }),
];

/** An engine whose installation writes one file and counts how often it was done. */
async function recipe(root: string, install: object, engine = "fake-engine"): Promise<void> {
  const folder = join(root, "baselines/fake");
  await mkdir(folder, { recursive: true });
  const content = {
    v: 1,
    kind: "baseline",
    engine,
    version: "1.0",
    dialect: "openai",
    install,
    serve: [process.execPath, FAKE],
    features: ["chat", "stream"],
    memBytes: 4e9,
    healthTimeoutMs: 20_000,
    sweep: SWEEP,
  };
  await writeFile(join(folder, "baseline.json"), JSON.stringify(content));
}

const counting = (root: string): object => ({
  kind: "build",
  argv: ["sh", "-c", `echo once >> ${root}/count && test -x "$1" && echo ok > "$0/made"`, "${ENGINE}", "${PYTHON}"],
  produces: "made",
  minutes: 1,
});

/** Stands for a Python whose venvs cost nothing: the real one takes 3–10 s. */
async function quickPython(root: string): Promise<string> {
  const path = join(root, "python");
  await writeFile(path, `#!/bin/sh\nmkdir -p "$3/bin" && ln -s "$(command -v python3)" "$3/bin/python"\n`, { mode: 0o755 });
  return path;
}

async function deps(root: string): Promise<BaselineDeps> {
  await writeFile(join(root, "model.gguf"), "weights");
  return {
    baselinesDir: join(root, "baselines"),
    cacheDir: join(root, "cache"),
    python: () => quickPython(root),
    modelPath: () => Promise.resolve(join(root, "model.gguf")),
    modelTools: () => Promise.resolve({ drawPrompt: drawFakePrompt, decode: textOf, judge: judgeFake }),
    judge: () => Promise.resolve(null),
    workDir: root,
    yieldDevice: () => Promise.resolve(() => undefined),
    limits: UNLIMITED,
  };
}

const run = (d: BaselineDeps): Promise<Outcome> => baselineHandler(d)(jobOf(spec), jobContext());

const failure = (r: Promise<unknown>): Promise<unknown> =>
  r.then(
    () => "no failure",
    (e: unknown) => e,
  );

afterEach(() => {
  vi.unstubAllEnvs();
});

it("an engine is installed once, its settings are swept, those that break or lie are left out, and the strongest is remembered", async () => {
  await using root = await workFolder();
  const d = await deps(root.path);
  await recipe(root.path, counting(root.path));
  const outcome = await run(d);
  expect(outcome).toMatchObject({ status: "baseline-ready", engine: "fake-engine", version: "1.0", strongest: "fast", accuracy: null });
  if (outcome.status !== "baseline-ready") return;
  expect(outcome.sweep.map((s) => s.setting)).toEqual(["as-shipped", "fast"]);
  expect(outcome.sweep[1]?.value).toBeGreaterThan(1.5 * (outcome.sweep[0]?.value ?? NaN));

  expect(await run(d)).toMatchObject({ sweep: outcome.sweep, strongest: "fast" });
  expect(await readFile(join(root.path, "count"), "utf8")).toBe("once\n");

  const arm = await startBaselineArm(d, { engine: "fake-engine", setting: null }, spec, jobContext());
  expect(arm).toMatchObject({ role: "baseline", treeDigest: null, engine: { name: "fake-engine", version: "1.0", setting: "fast" } });
  await arm.stack.stop();

  const [file = ""] = (await readdir(join(root.path, "cache/baselines/sweeps"))).sort();
  await writeFile(join(root.path, "cache/baselines/sweeps", file), JSON.stringify({ sweep: outcome.sweep, strongest: "as-shipped" }));
  const damaged = startBaselineArm(d, { engine: "fake-engine", setting: null }, spec, jobContext());
  expect(await failure(damaged)).toMatchObject({ code: "baseline-not-ready" });
  expect(await run(d)).toMatchObject({ strongest: "fast" });
});

it("while an engine runs the device is its own, and given back with its end, however it ended", async () => {
  await using root = await workFolder();
  const told: string[] = [];
  const yieldDevice = (): Promise<() => void> => Promise.resolve(told.push("yielded")).then(() => () => void told.push("back"));
  const d = { ...(await deps(root.path)), yieldDevice };
  await recipe(root.path, counting(root.path));
  await run(d);
  expect(told.length).toBeGreaterThan(4);
  expect(told.every((word, i) => word === (i % 2 === 0 ? "yielded" : "back"))).toBe(true);
  told.length = 0;
  const arm = await startBaselineArm(d, { engine: "fake-engine", setting: "fast" }, spec, jobContext());
  expect(told).toEqual(["yielded"]);
  await arm.stack.stop();
  expect(told).toEqual(["yielded", "back"]);
});

it("an arm whose engine was never made ready is the harness's failure", async () => {
  await using root = await workFolder();
  await recipe(root.path, counting(root.path));
  const arm = startBaselineArm(await deps(root.path), { engine: "fake-engine", setting: null }, spec, jobContext());
  expect(await failure(arm)).toMatchObject({ attribution: "harness", code: "baseline-not-ready" });
});

it("an installation that fails leaves nothing behind, is nobody's fault but the harness's, and is tried again", async () => {
  await using root = await workFolder();
  const d = await deps(root.path);
  await recipe(root.path, { ...counting(root.path), argv: ["sh", "-c", "echo a compiler said no >&2; exit 3"] });
  const error = await failure(run(d));
  expect(error).toBeInstanceOf(JobError);
  expect(error).toMatchObject({ attribution: "harness", code: "install-failed", logTail: "a compiler said no\n" });
  await recipe(root.path, counting(root.path));
  expect(await run(d)).toMatchObject({ status: "baseline-ready" });
});

it("an agent states an engine once it is installed, until its recipe changes", async () => {
  await using root = await workFolder();
  const d = await deps(root.path);
  const python = await quickPython(root.path);
  const stated = (): Promise<string[]> => installedEngines(d.baselinesDir, d.cacheDir, python);
  await recipe(root.path, counting(root.path), "llama.cpp");
  expect(await stated()).toEqual([]);
  await baselineHandler(d)(jobOf({ ...spec, engine: "llama.cpp" }), jobContext());
  expect(await stated()).toEqual(["llama.cpp"]);
  expect(await installedEngines(d.baselinesDir, d.cacheDir, null)).toEqual([]);
  await recipe(root.path, { ...counting(root.path), minutes: 2 }, "llama.cpp");
  expect(await stated()).toEqual([]);
});

/** As Debian's is without python3-venv. */
async function pythonWithoutEnsurepip(root: string): Promise<string> {
  const path = join(root, "bare-python");
  const refuse = 'case "$*" in "-m venv --without-pip "*) ;; "-m venv "*) echo "ensurepip is not available" >&2; exit 1 ;; esac';
  await writeFile(path, `#!/bin/sh\n${refuse}\nexec python3 "$@"\n`, { mode: 0o755 });
  return path;
}

it("no network is told apart from a broken installation, also where pip itself must be fetched", async () => {
  await using root = await workFolder();
  // Nobody listens on the discard port of loopback.
  vi.stubEnv("PIP_INDEX_URL", "http://127.0.0.1:9/simple");
  vi.stubEnv("PIP_RETRIES", "0");
  // What stands for a venv here is the system's own Python, into which Debian's pip installs nothing (PEP 668).
  vi.stubEnv("PIP_BREAK_SYSTEM_PACKAGES", "1");
  await recipe(root.path, { kind: "pip", requirements: ["vibeserve-no-such-package==1.0"], minutes: 1 });
  expect(await failure(run(await deps(root.path)))).toMatchObject({ attribution: "network", code: "install-failed" });
  const bare = await failure(run({ ...(await deps(root.path)), python: () => pythonWithoutEnsurepip(root.path) }));
  expect(bare).toMatchObject({ attribution: "network", message: expect.stringContaining("python3-venv") as string });
});

it("an unknown engine is named, with the broken recipe that may have been it", async () => {
  await using root = await workFolder();
  const d = await deps(root.path);
  await recipe(root.path, counting(root.path));
  await mkdir(join(root.path, "baselines/other"));
  await writeFile(join(root.path, "baselines/other/baseline.json"), '{"v": 1}');
  const arm = (engine: string): Promise<unknown> => failure(startBaselineArm(d, { engine, setting: null }, spec, jobContext()));
  expect(await arm("fake-engine")).toMatchObject({ code: "baseline-not-ready" });
  const error = await arm("vllm");
  expect(error).toMatchObject({ attribution: "harness", code: "bad-recipe" });
  expect(String(error)).toMatch(/no recipe of the engine "vllm"; there are: .*other\/baseline.json, which is broken \(kind: /);
});

it("the sweep gives a second run to settings close to the best, and one slow run does not cost the strongest its place", async () => {
  const runs: Record<string, number[]> = { a: [95, 104], b: [100, 99], c: [50, 500], d: [] };
  const tried: string[] = [];
  const sweep = await sweepSettings(["a", "b", "c", "d"], metric, async (s) => {
    tried.push(s);
    return runs[s]?.shift() ?? null;
  });
  expect(tried.join("")).toBe("abcdab");
  expect(sweep).toEqual({
    sweep: [
      { setting: "a", value: 104 },
      { setting: "b", value: 100 },
      { setting: "c", value: 50 },
    ],
    strongest: "a",
  });
  expect(await sweepSettings(["d"], metric, () => Promise.resolve(null))).toBeNull();
});
