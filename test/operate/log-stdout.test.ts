import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";

vi.setConfig({ testTimeout: 60_000 });

test("in a container standard output is the coordinator's log, line for line, and nothing else", async () => {
  using dir = tempDir("log-stdout");
  const site = new Site(dir.path, { VIBESERVE_LOG_STDOUT: "1" });
  const up = site.run("up");
  try {
    await up.printed(/"event":"coordinator\.ready"/);
  } finally {
    await site.stop();
    site.cleanUp();
  }
  expect(up.out()).toBe(readFileSync(join(site.data, "logs/coordinator.log"), "utf8"));
  const events = up
    .out()
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { event: string }).event);
  expect([events[0], events.at(-1)]).toEqual(["coordinator.starting", "coordinator.stopping"]);
});

test("it goes on, and into its file, when nobody reads standard output any more", async () => {
  using dir = tempDir("log-stdout");
  const site = new Site(dir.path, { VIBESERVE_LOG_STDOUT: "1" });
  const up = site.run("up");
  try {
    await up.printed(/"event":"coordinator\.ready"/);
    up.child.stdout?.destroy();
    up.child.kill("SIGTERM");
    expect(await up.ended, up.err()).toBe(0);
  } finally {
    site.cleanUp();
  }
  expect(readFileSync(join(site.data, "logs/coordinator.log"), "utf8")).toMatch(/"event":"coordinator\.stopping"/);
});

test("what nobody reads of standard output is not kept in memory for ever; the file has all of it", async () => {
  using dir = tempDir("log-stdout");
  const module = join(import.meta.dirname, "../../coordinator/src/process/log-file.ts");
  const program = `
    const log = (await import(${JSON.stringify(module)})).openLog(${JSON.stringify(dir.path)}, "flood", "info", true);
    for (let i = 0; i < 20_000; i++) log.info({ i, filler: "x".repeat(1_000) });
    process.stderr.write(String(process.stdout.writableLength), () => process.exit(0));`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], { stdio: ["ignore", "pipe", "pipe"] });
  const [waiting] = (await once(child.stderr, "data")) as [Buffer];
  await once(child, "exit");
  child.stdout.destroy();
  expect(Number(waiting.toString())).toBeGreaterThan(0);
  expect(Number(waiting.toString())).toBeLessThan(5 * 2 ** 20);
  expect(readFileSync(join(dir.path, "logs/flood.log"), "utf8").trim().split("\n")).toHaveLength(20_000);
});
