import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { lockDataFolder } from "../../gpu-agent/src/data-lock.ts";
import { platformOf } from "../../gpu-agent/src/platform.ts";
import { readStat } from "../../gpu-agent/src/process/proc-table.ts";
import { descendants } from "../../gpu-agent/src/process/process-table.ts";
import { ProcessTree } from "../../gpu-agent/src/process/process-tree.ts";
import { parsePs } from "../../gpu-agent/src/process/ps-table.ts";
import { killLeftovers, MARK_NAME } from "../../gpu-agent/src/process/sweep.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { mac } from "./mac-kit.ts";

const fixture = (name: string): string => readFileSync(join(import.meta.dirname, `../fixtures/ps/${name}.txt`), "utf8");

it("what ps prints on a Mac is read: starts, groups and states, times and memory; a heading is no process", () => {
  const started = parsePs(fixture("started"), ["pid", "lstart", "command"]);
  expect(started.map(({ pid, startTicks }) => [pid, new Date(startTicks * 10).toISOString()])).toEqual([
    [1899, "2026-08-24T16:50:17.000Z"],
    [2251, "2026-08-24T16:50:23.000Z"],
    [92631, "2026-09-07T14:55:26.000Z"],
  ]);
  expect(started[0]?.words).toEqual(["/Applications/Espanso.app/Contents/MacOS/espanso", "launcher"]);
  expect(parsePs(fixture("stopped"), ["pid", "ppid", "pgid", "state", "command"])).toMatchObject([
    { pid: 51150, ppid: 51149, pgid: 51150, state: "T" },
  ]);
  const times = parsePs(fixture("times"), ["pid", "ppid", "user", "state", "utime", "time", "elapsed", "rss", "vsz", "pagein", "command"]);
  expect(times.map(({ ownTicks, rssBytes, state }) => [Math.round(ownTicks), rssBytes, state])).toEqual([
    [112_121, 12_288_000, "S"],
    [3_818, 942_080, "S"],
    [25_362, 3_182_592, "S"],
  ]);
  expect(parsePs("ps: illegal option\n\n")).toEqual([]);
});

it("ps is the table of processes: this one with its parent and start, those below it, and none that is gone", async () => {
  using dir = tempDir("mac");
  const { processes } = mac(dir.path, "ignores");
  const child = spawn("sleep", ["60"], { env: { ...process.env, VS_MAC_TEST: "a-b" } });
  try {
    const [own, theirs] = [processes.stat(process.pid), processes.stat(child.pid ?? 0)];
    expect(own).toMatchObject({ pid: process.pid, ppid: process.ppid, pgid: readStat(process.pid)?.pgid });
    expect(processes.uidOf(own!)).toBe(process.getuid?.());
    expect(theirs?.startTicks).toBeGreaterThanOrEqual(own?.startTicks ?? Infinity);
    const table = processes.read();
    expect(table.find((p) => p.pid === process.pid)?.startTicks).toBe(own?.startTicks);
    expect(descendants(table)).toContain(child.pid);
    expect([processes.hasEnvironment(theirs!, "VS_MAC_TEST=a-b"), processes.hasEnvironment(theirs!, "VS_MAC_TEST=a")]).toEqual([
      true,
      false,
    ]);
    expect(processes.startedWith("VS_MAC_TEST=a-")).toContain(child.pid);
    expect(processes.namespaceOf(process.pid)).toBeNull();
  } finally {
    child.kill("SIGKILL");
    await new Promise((resolve) => child.once("close", resolve));
  }
  expect(processes.stat(child.pid ?? 0)).toBeNull();
  expect(platformOf("darwin")).toMatchObject({ name: "darwin", sandboxExec: "/usr/bin/sandbox-exec" });
  expect(platformOf("linux")).toMatchObject({ name: "linux", sandboxExec: null });
});

it("by ps a daemon that left its parent, group and session is found, stopped, resumed and ended", async () => {
  using dir = tempDir("mac");
  const { processes } = mac(dir.path, "ignores");
  const tree = await ProcessTree.start({
    argv: ["/bin/sh", "-c", "setsid sh -c 'sleep 61 & exec sleep 62' & exec sleep 63"],
    ...{ env: { PATH: "/usr/bin:/bin" }, cwd: "/", uid: null, mark: `${MARK_NAME}=mac-1`, bwrap: null, processes },
  });
  await expect.poll(() => tree.members().length, { timeout: 10_000 }).toBe(3);
  await tree.pause();
  expect(tree.members().map((p) => p.state)).toEqual(["T", "T", "T"]);
  await tree.resume();
  expect(tree.rssBytes()).toBeGreaterThan(100_000);
  expect(tree.cpuSeconds()).toBeGreaterThanOrEqual(0);
  await tree.stop();
  expect(tree.members()).toEqual([]);
  const left = spawn("sleep", ["64"], { detached: true, env: { [MARK_NAME]: "macleft-1", PATH: "/usr/bin:/bin" } });
  const ended = new Promise((resolve) => left.once("close", (_code, signal) => resolve(signal)));
  expect([killLeftovers("macother", processes), killLeftovers("macleft", processes)]).toEqual([0, 1]);
  expect(await ended).toBe("SIGKILL");
});

it("by ps the holder of a data folder is known to live, or to be gone", () => {
  using dir = tempDir("mac");
  const { processes } = mac(dir.path, "ignores");
  const data = join(dir.path, "data");
  mkdirSync(data);
  lockDataFolder(data, processes);
  expect(() => lockDataFolder(data, processes)).toThrow(`in use by the agent with pid ${process.pid}`);
  writeFileSync(join(data, "agent.lock"), JSON.stringify({ pid: process.pid, start: 1 }));
  expect(() => lockDataFolder(data, processes)).not.toThrow();
});
