import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { TinyCoordinator } from "./fleet-kit.ts";

const dir = tempDir("idle");
const file = join(dir.path, "modules");
let fleet: TinyCoordinator;

beforeAll(async () => {
  process.env["MODULES_FILE"] = file;
  fleet = new TinyCoordinator(await startBroker(join(dir.path, "broker")), join(dir.path, "agents"));
  fleet.nodeFlags = ["--import", join(import.meta.dirname, "record-modules.mjs")];
  await fleet.open();
});
afterAll(async () => {
  delete process.env["MODULES_FILE"];
  await fleet.close();
  dir[Symbol.dispose]();
});

/** What only jobs need, and what nobody does. */
const FOR_JOBS = [
  ...["accuracy", "tokenizer", "profile"].map((folder) => `/gpu-agent/src/${folder}/`),
  ...["worker/handlers", "worker/evaluator", "worker/workbench", "bench/run-bench", "bench/load-generator", "baseline/baseline-job"].map(
    (name) => `/gpu-agent/src/${name}.ts`,
  ),
  ...["build/build-stack", "serve/start-server"].map((name) => `/gpu-agent/src/${name}.ts`),
];
const loaded = (parts: readonly string[]): string[] => {
  const urls = readFileSync(file, "utf8").split("\n");
  return parts.filter((part) => urls.some((url) => url.includes(part)));
};

it("an agent that waits has loaded nothing that only jobs need, and no language but ours; its first job loads it", async () => {
  const agent = await fleet.agent("a1", "a1");
  await fleet.until("it is registered", () => /taking jobs/.test(agent.log()));
  expect(loaded([...FOR_JOBS, "node:http"])).toEqual([]);
  expect(loaded(["/zod/v4/locales/en.js", "/zod/v4/locales/de.js", "/gpu-agent/src/worker/worker.ts"])).toEqual([
    "/zod/v4/locales/en.js",
    "/gpu-agent/src/worker/worker.ts",
  ]);
  await fleet.build("a1");
  await fleet.until("its build", () => fleet.results.length === 1, 60_000);
  expect(fleet.results[0]?.outcome.status).toBe("built");
  expect(loaded(FOR_JOBS)).toEqual(FOR_JOBS);
}, 90_000);
