import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterEach, expect, test, vi } from "vitest";
import { benchDispatch } from "../../coordinator/src/benchmarks/dispatch.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";

// Each test starts many processes; on a machine that is busy with other suites that takes several times as long as alone.
vi.setConfig({ testTimeout: 120_000 });
afterEach(() => vi.unstubAllEnvs());

/** All that the bench starts names its scratch folder, or what lies in it, on its command line. */
const processesIn = (dir: string): string[] =>
  execFileSync("ps", ["-A", "-ww", "-o", "args="], { encoding: "utf8" })
    .split("\n")
    .filter((line) => line.includes(dir));

test("a few jobs give every row a value, and leave no process and no file behind", async () => {
  using dir = tempDir("dispatch");
  vi.stubEnv("TMPDIR", dir.path);
  const log = new PassThrough({ encoding: "utf8" });
  const signal = new AbortController().signal;
  const report = await benchDispatch({ settings: loadSettings({}), jobs: 13, warmUps: 2, idleS: 1, signal, log });
  const said = String(log.read());
  const idle = "idle: coordinator, agent and broker";
  const expected: [string, string][] = [
    ["job dispatch, p50", "<= 3"],
    ["job dispatch, p99", "<= 15"],
    ["floor: raw JetStream, p50", ""],
    ["floor: raw JetStream, p99", ""],
    ["dispatch p50 / floor p50", ""],
  ];
  if (existsSync("/proc/self/stat")) {
    expected.push([`${idle}, CPU`, "<= 1"], [`${idle}, RSS`, "<= 300"]);
    for (const name of ["coordinator", "agent", "broker"]) expect(said).toMatch(new RegExp(`idle: ${name} \\(pid \\d+\\): .* MB`));
  } else expect(report.notMeasured).toMatchObject([{ what: idle }]);
  expect(report.rows.map((r) => [r.what, r.goal])).toEqual(expected);
  for (const { what, value } of report.rows) expect(value, what).toSatisfy((v: number) => Number.isFinite(v) && v >= 0);
  for (const { what, value } of report.rows.slice(0, 5)) expect(value, what).toBeGreaterThan(0);
  expect(processesIn(dir.path)).toEqual([]);
  expect(readdirSync(dir.path)).toEqual([]);
});

test.each(["SIGINT", "SIGKILL"] as const)("a bench that gets %s in the middle of it leaves no process behind", async (signal) => {
  using dir = tempDir("dispatch");
  const scratch = join(dir.path, "scratch");
  mkdirSync(scratch);
  const site = new Site(dir.path, { VIBESERVE_ROOT: join(import.meta.dirname, "../.."), TMPDIR: scratch });
  try {
    const bench = site.run("bench", "dispatch");
    await bench.printed(/dispatch: \d+ warm-ups/);
    expect(processesIn(scratch)).toHaveLength(3);
    bench.child.kill(signal);
    expect(await bench.ended).toBe(signal === "SIGINT" ? 1 : -1);
    if (signal === "SIGINT") {
      expect(processesIn(scratch)).toEqual([]);
      expect(readdirSync(scratch)).toEqual([]);
      expect(bench.err()).toContain("vibeserve: stopped before all was measured");
    } else await expect.poll(() => processesIn(scratch), { timeout: 30_000 }).toEqual([]);
  } finally {
    site.cleanUp();
  }
});
