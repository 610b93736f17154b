import { describe } from "vitest";
import { pythonWith, servePythonStack } from "../kit/python-stack.ts";
import { streamTests } from "./suites/stream.ts";
import { twinTests } from "./suites/twin.ts";

/** rms_norm is torch's since 2.4. With a GPU in the machine the products and the graphs are the device's own; else they fall back to torch's and to launches. */
const python = pythonWith("torch", "numpy", "tokenizers", "torch.nn.modules.normalization", "torch.nn.attention");

/** What a search binds, one on top of the other. */
const CHAIN = ["torch-batched-attention", "torch-fused-projections", "cuda-graph-decode", "async-scheduling"];

describe.skipIf(python === null)("skills of stacks/torch (skipped where no Python has torch 2.4 and tokenizers)", () => {
  for (const n of [1, 2, 3, 4]) {
    const skills = CHAIN.slice(0, n);
    describe(skills.join(" + "), () => twinTests(() => servePythonStack("torch", python!, { skills })));
  }
  describe("all, streamed", () => streamTests(() => servePythonStack("torch", python!, { skills: CHAIN })));
});
