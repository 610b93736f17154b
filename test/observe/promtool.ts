import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { onTestFailed, test } from "vitest";

const cache = join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "vibeserve/promtool");
const found = [...(process.env["PATH"] ?? "").split(delimiter), cache].map((dir) => join(dir, "promtool")).find((file) => existsSync(file));
if (found === undefined)
  process.stderr.write(`skipped: tests that need promtool, which is neither on PATH nor in ${cache} (.ci/run fetches it)\n`);

export const promtoolTest = test.skipIf(found === undefined);

/** Runs it; its words where it refuses are shown with the failed test. */
export function promtool(args: readonly string[], input = ""): void {
  try {
    execFileSync(found ?? "promtool", args, { input, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    onTestFailed(() => void process.stderr.write(`promtool ${args.join(" ")}:\n${stdout}\n${stderr}\n`));
    throw error;
  }
}
