import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parseTarget, readTargetFile } from "../../coordinator/src/cli/target-file.ts";
import { tempDir } from "../kit/temp-dir.ts";

const shipped = join(import.meta.dirname, "../../targets/cpu/chat.yaml");

const GOOD = `v: 1
kind: target
name: chat
model: { name: m, file: m.gguf, sha256: ${"a".repeat(64)} }
device: { vibeserve.dev/device.kind: cpu }
workload:
  arrival: { process: closed, concurrency: 8 }
  prompt: { distribution: lognormal, median: 128, sigma: 0.4, min: 48, max: 384 }
  output: { distribution: uniform, min: 64, max: 128 }
  requests: 48
slice:
  arrival: { process: closed, concurrency: 8 }
  prompt: { distribution: fixed, tokens: 20 }
  output: { distribution: fixed, tokens: 8 }
  requests: 8
objective:
  name: output_tokens_per_second
  unit: tok/s
  direction: maximize
accuracy: { class: exact }
seed: stacks/cpu
agent: playbook
budget: { wallS: 420, experiments: 24 }
baselines: [openvino-genai]
`;

test("the shipped target and the one that the cases below start from are good", () => {
  expect(readTargetFile(shipped)).toMatchObject({ name: "cpu-chat" });
  expect(parseTarget(GOOD)).toMatchObject({ name: "chat" });
});

test.each<[what: string, from: string, to: string, expected: string]>([
  [
    "an unknown key",
    "agent: playbook",
    "agent: playbook\nspeed: high",
    "T:23: speed: unknown key; allowed: v, kind, name, model, device, deviceCount, workload, loads, slice, objective, accuracy, seed, agent, portfolio, bindings, budget, schedule, baselines, fits, verified",
  ],
  [
    "an unknown key in a branch",
    "concurrency: 8 }\n  prompt: { distribution: l",
    "concurrency: 8, rate: 3 }\n  prompt: { distribution: l",
    "T:7: workload.arrival.rate: unknown key; allowed: process, concurrency",
  ],
  ["a negative budget", "wallS: 420", "wallS: -5", "T:23: budget.wallS: -5 is too small; allowed: more than 0"],
  ["a budget that is no number", "wallS: 420", "wallS: long", 'T:23: budget.wallS: "long" is not a number'],
  ["a metric without direction", "  direction: maximize\n", "", "T:16: objective.direction: is missing; allowed: maximize, minimize"],
  [
    "a direction that is no direction",
    "direction: maximize",
    "direction: more",
    'T:19: objective.direction: "more" is not allowed; allowed: maximize, minimize',
  ],
  [
    "the wrong direction",
    "direction: maximize",
    "direction: minimize",
    "T:19: objective.direction: output_tokens_per_second is to be maximized, not minimized",
  ],
  ["the wrong unit", "unit: tok/s", "unit: ms", 'T:18: objective.unit: "ms" is not the unit of output_tokens_per_second; allowed: tok/s'],
  [
    "an unknown metric",
    "name: output_tokens_per_second",
    "name: speed",
    'T:17: objective.name: "speed" is not a metric; allowed: output_tokens_per_second, ttft_p50, tpot_p50, e2e_p50, request_tokens_per_second_p50',
  ],
  [
    "an unknown baseline",
    "[openvino-genai]",
    "[tgi]",
    'T:24: baselines.0: "tgi" is not allowed; allowed: openvino-genai, llama.cpp, llama.cpp-cuda',
  ],
  [
    "an unknown arrival",
    "process: closed, concurrency: 8 }\n  prompt: { distribution: l",
    "process: bursty, concurrency: 8 }\n  prompt: { distribution: l",
    'T:7: workload.arrival.process: "bursty" is not allowed; allowed: closed, poisson',
  ],
  [
    "a distribution left out",
    "{ distribution: fixed, tokens: 8 }",
    "{ tokens: 8 }",
    "T:14: slice.output.distribution: is missing; allowed: fixed, uniform, lognormal",
  ],
  ["a half request", "requests: 48", "requests: 4.5", "T:10: workload.requests: 4.5 is not a whole number"],
  ["min over max", "min: 64, max: 128", "min: 640, max: 128", "T:9: workload.output.min: min 640 is over max 128"],
  ["a digest that is none", "a".repeat(64), "abc", 'T:4: model.sha256: "abc" must be a sha256 in hex'],
  [
    "a shape that is a path",
    "budget: {",
    "fits: { shape: ../x, weights: bfloat16, deviceMiB: 9 }\nbudget: {",
    'T:23: fits.shape: "../x" must be lower-case letters',
  ],
  ["a missing section", "accuracy: { class: exact }\n", "", "T:1: accuracy: is missing; it must be an object"],
  ["a name that can't be in a subject", "name: chat", "name: my.chat", "T:3: name: \"my.chat\" must be 1–64 letters, digits, '_' or '-'"],
  ["a newer format", "v: 1", "v: 2", "T:1: v: 2 is not allowed; allowed: 1"],
  ["a key twice", "agent: playbook", "agent: playbook\nagent: playbook", "T:23: not YAML: Map keys must be unique"],
  ["no YAML at all", "v: 1", "v: [1", "T:2: not YAML: "],
])("%s is refused with file, line, key and what is allowed", (_what, from, to, expected) => {
  expect(GOOD.includes(from)).toBe(true);
  using dir = tempDir("target");
  const path = join(dir.path, "t.yaml");
  writeFileSync(path, GOOD.replace(from, to));
  let message = "";
  try {
    readTargetFile(path);
  } catch (error) {
    message = (error as Error).message.replaceAll(path, "T");
    expect((error as { exitCode?: number }).exitCode).toBe(2);
  }
  expect(message.split("\n")[0]?.slice(0, expected.length)).toBe(expected);
});

test("a file that is not there, and one that is no mapping", () => {
  expect(() => readTargetFile("/nowhere/t.yaml")).toThrow("/nowhere/t.yaml: there is no such file");
  expect(parseTarget("just text")).toEqual([{ line: 1, key: "", message: '"just text" is not an object' }]);
  expect(parseTarget("")).toMatchObject([{ line: 1 }]);
});

test("two mistakes are told at once, in the order of their lines", () => {
  const problems = parseTarget(GOOD.replace("wallS: 420", "wallS: 0").replace("kind: target", "kind: goal"));
  expect(problems).toMatchObject([{ key: "kind" }, { key: "budget.wallS" }]);
});
