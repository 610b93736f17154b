import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { natsServer } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { alive } from "../kit/vibeserve-process.ts";

/** pids of a process and of all that it started, directly or not. */
function treeOf(pid: number): number[] {
  const rows = execFileSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" })
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number));
  const under = (parent: number): number[] => [parent, ...rows.flatMap(([child = 0, of]) => (of === parent ? under(child) : []))];
  return under(pid);
}

test(
  "a SIGTERM to `npx vibeserve up` ends all that it started: npm's shell, the coordinator and its broker",
  { timeout: 60_000 },
  async () => {
    using dir = tempDir("npx");
    const npx = spawn("npx", ["vibeserve", "up", "--data", join(dir.path, "data")], {
      cwd: join(import.meta.dirname, "../.."),
      env: { ...process.env, VIBESERVE_NATS_SERVER: natsServer },
      stdio: ["ignore", "pipe", "inherit"],
    });
    for await (const line of createInterface({ input: npx.stdout })) if (line.includes("coordinator ready")) break;
    const tree = treeOf(npx.pid ?? 0);
    expect(tree.length).toBeGreaterThanOrEqual(4);
    npx.kill("SIGTERM");
    await once(npx, "exit");
    await expect.poll(() => tree.filter(alive), { timeout: 30_000 }).toEqual([]);
  },
);
