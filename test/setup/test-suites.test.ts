import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { tempDir } from "../kit/temp-dir.ts";
import { fakeRepository } from "./bootstrap-kit.ts";
import type { Ended } from "./run-process.ts";

let dir: ReturnType<typeof tempDir>;
beforeEach(() => (dir = tempDir("test-suites")));
afterEach(() => dir[Symbol.dispose]());

interface Scenario {
  /** Exit codes. */
  setUp?: number;
  types?: number;
  vitest?: number;
  /** What vitest writes as its JSON report; undefined: it writes none. */
  report?: object;
}

/** Runs a verb with stand-ins where the tools are. */
function run(verb: "test" | "test-slow", { setUp = 0, types = 0, vitest = 0, report }: Scenario): Promise<Ended> {
  const repository = fakeRepository(dir.path, { installed: true });
  const put = (path: string, code: string): void => {
    mkdirSync(dirname(join(dir.path, path)), { recursive: true });
    writeFileSync(join(dir.path, path), code);
  };
  put("coordinator/src/setup/setup-command.ts", `process.exitCode = ${setUp};`);
  put("node_modules/typescript/bin/tsc", `process.exitCode = ${types};`);
  put("node_modules/eslint/bin/eslint.js", "");
  put("node_modules/prettier/bin/prettier.cjs", "");
  const write = report === undefined ? "" : `writeFileSync(file, ${JSON.stringify(JSON.stringify(report))});`;
  put(
    "node_modules/vitest/vitest.mjs",
    `import { writeFileSync } from "node:fs";
const file = process.argv.find((word) => word.startsWith("--outputFile.json=")).slice(18);
console.log("vitest", process.argv.slice(2).filter((word) => !word.startsWith("--outputFile")).join(" "));
${write}
process.exitCode = ${vitest};`,
  );
  return repository.bootstrap(verb, "test/x").ended;
}

const lastLine = ({ text }: Ended): string | undefined => text.trimEnd().split("\n").at(-1);
const passing = { numPassedTests: 7, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] };

it("the full suite ends with the counts, alone on a line, each static check being one", async () => {
  const ended = await run("test", { report: { ...passing, numPendingTests: 2 } });
  expect(lastLine(ended)).toBe("10 passed, 0 failed, 2 skipped");
  expect(ended.code).toBe(0);
  expect(ended.text).toContain("vitest run --reporter=default --reporter=json --config vitest.config.ts test/x");
});

it("a failing static check fails the suite, and the tests run none the less", async () => {
  const ended = await run("test", { types: 2, report: passing });
  expect(lastLine(ended)).toBe("9 passed, 1 failed");
  expect(ended.code).toBe(1);
});

it("a test file that does not load counts as one failure", async () => {
  const broken = { status: "failed", assertionResults: [] };
  const ended = await run("test", { vitest: 1, report: { ...passing, testResults: [broken, broken] } });
  expect(lastLine(ended)).toBe("10 passed, 2 failed");
  expect(ended.code).toBe(1);
});

it("a vitest that fails without a failing test counts as one failure", async () => {
  expect(lastLine(await run("test", { vitest: 1, report: passing }))).toBe("10 passed, 1 failed");
});

it("a vitest that dies before its report counts as one failure", async () => {
  const ended = await run("test", { vitest: 134 });
  expect(lastLine(ended)).toBe("3 passed, 1 failed");
  expect(ended.code).toBe(1);
});

it("a set-up that fails ends the suite at once", async () => {
  const ended = await run("test", { setUp: 2, report: passing });
  expect(lastLine(ended)).toBe("0 passed, 1 failed");
  expect(ended.text).not.toContain("vitest");
});

it("the slow suite runs its own tests alone, and passes when there are none", async () => {
  const ended = await run("test-slow", {});
  expect(lastLine(ended)).toBe("0 passed, 0 failed");
  expect(ended.code).toBe(0);
  expect(ended.text).toContain("--config vitest.slow.config.ts test/x");
});
