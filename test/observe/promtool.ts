import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { test } from "vitest";

const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "vibeserve/promtool");
const found = [...(process.env["PATH"] ?? "").split(delimiter), cache].map((dir) => join(dir, "promtool")).find((file) => existsSync(file));
if (found === undefined)
  process.stderr.write(`skipped: tests that need promtool, which is neither on PATH nor in ${cache} (.ci/run fetches it)\n`);

export const promtoolTest = test.skipIf(found === undefined);

/** Runs it; where it refuses, its words are the error's. */
export function promtool(args: readonly string[], input = ""): void {
  execFileSync(found ?? "promtool", args, { input, stdio: ["pipe", "pipe", "pipe"] });
}
