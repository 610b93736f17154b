import { describe } from "vitest";
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
