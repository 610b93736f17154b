import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "vitest";
import { findProgram } from "../kit/programs.ts";
import { cacheDir } from "../kit/weights.ts";

const found = findProgram("promtool", [join(cacheDir(), "promtool")], "tests of alerts and metrics that need it (.ci/run fetches it)");

export const promtoolTest = test.skipIf(found === null);

/** Runs it; where it refuses, its words are the error's. */
export function promtool(args: readonly string[], input = ""): void {
  execFileSync(found ?? "promtool", args, { input, stdio: ["pipe", "pipe", "pipe"] });
}
