import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

/** The checks that run no code of ours: each counts as one test in the closing line. */
const staticChecks = [
  ["types", ["node_modules/typescript/bin/tsc", "-p", "tsconfig.json"]],
  ["lint", ["node_modules/eslint/bin/eslint.js", "."]],
  ["format", ["node_modules/prettier/bin/prettier.cjs", "--check", "--log-level=warn", "."]],
];

/** `npm test`: set-up, types, lint, format, and every test but the slow ones. Further arguments go to vitest. Returns the exit code. */
export async function runFullSuite(root, node, args) {
  const tally = { passed: 0, failed: 0, skipped: 0 };
  if (await setUp(root, node, tally)) {
    await Promise.all(staticChecks.map((check) => runStaticCheck(root, node, check, tally)));
    await runVitest(root, node, ["--config", "vitest.config.ts", ...args], tally);
  }
  return close(tally);
}

/** `npm run test:slow`: whole campaigns, faults and builds, minutes each. An empty test/slow passes. Returns the exit code. */
export async function runSlowSuite(root, node, args) {
  const tally = { passed: 0, failed: 0, skipped: 0 };
  if (await setUp(root, node, tally)) await runVitest(root, node, ["--config", "vitest.slow.config.ts", ...args], tally);
  return close(tally);
}

async function setUp(root, node, tally) {
  const { code } = await run(root, node, ["coordinator/src/setup/setup-command.ts"], "inherit");
  if (code !== 0) tally.failed += 1;
  return code === 0;
}

async function runStaticCheck(root, node, [name, args], tally) {
  const started = performance.now();
  const { code, text } = await run(root, node, args, "pipe");
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  if (text.trim() !== "") console.log(text.trimEnd());
  console.log(`${name} … ${code === 0 ? "ok" : "FAILED"} (${seconds} s)`);
  if (code === 0) tally.passed += 1;
  else tally.failed += 1;
}

async function runVitest(root, node, args, tally) {
  const folder = mkdtempSync(join(tmpdir(), "vibeserve-tests-"));
  try {
    const file = join(folder, "results.json");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`];
    const { code } = await run(root, node, ["node_modules/vitest/vitest.mjs", "run", ...reporters, ...args], "inherit");
    const counted = count(file);
    tally.passed += counted.passed;
    tally.skipped += counted.skipped;
    // vitest also fails for what is no test: an error outside any, a worker that died.
    tally.failed += code === 0 ? counted.failed : Math.max(counted.failed, 1);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A file that fails to load has no tests of its own in the results: it counts as one that failed. */
function count(file) {
  let results;
  try {
    results = JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return { passed: 0, failed: 0, skipped: 0 }; // nothing ran; the exit code says whether that is right
  }
  const broken = results.testResults.filter(
    (suite) => suite.status === "failed" && !suite.assertionResults.some((test) => test.status === "failed"),
  );
  return {
    passed: results.numPassedTests,
    failed: results.numFailedTests + broken.length,
    skipped: results.numPendingTests + (results.numTodoTests ?? 0),
  };
}

function close({ passed, failed, skipped }) {
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  return failed === 0 ? 0 : 1;
}

function run(root, node, args, output) {
  const path = [join(root, "node_modules/.bin"), process.env.PATH ?? ""].join(delimiter);
  const child = spawn(node, args, { cwd: root, env: { ...process.env, PATH: path }, stdio: ["ignore", output, output] });
  let text = "";
  child.stdout?.on("data", (chunk) => (text += chunk));
  child.stderr?.on("data", (chunk) => (text += chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? 1, text }));
  });
}
