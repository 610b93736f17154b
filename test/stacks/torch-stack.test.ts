import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { pythonWith, servePythonStack } from "../kit/python-stack.ts";
import { contractTests } from "./suites/contract.ts";
import { refusalTests } from "./suites/refusals.ts";
import { streamTests } from "./suites/stream.ts";
import { twinTests } from "./suites/twin.ts";

const python = pythonWith("torch", "numpy", "tokenizers");

describe.skipIf(python === null)("stacks/torch on a CPU (skipped where no Python has torch and tokenizers)", () => {
  const serve = () => servePythonStack("torch", python!);
  describe("contract", () => contractTests(serve, "tiny"));
  describe("refusals", () => refusalTests(serve));
  describe("streams", () => streamTests(serve));
  describe("the float64 twin", () => twinTests(serve));
});

const numbers = pythonWith("numpy");

test.skipIf(numbers === null)("sequences that are only scored have a place among the 64 too (skipped where no Python has numpy)", () => {
  const program = join(import.meta.dirname, "torch/places.py");
  const env = { ...process.env, PYTHONPATH: numbers!.path };
  const said = execFileSync(numbers!.command, [program, join(import.meta.dirname, "../../stacks/torch")], { encoding: "utf8", env });
  expect(said).toBe("64 [[[], [], [0.0]], [[], [0.0]]]\n");
});
