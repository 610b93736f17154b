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
