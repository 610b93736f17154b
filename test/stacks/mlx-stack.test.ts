import { describe, expect, test } from "vitest";
import { pythonWith, servePythonStack, serveRecipe } from "../kit/python-stack.ts";
import { at, numbersAt, type ServedStack } from "./served.ts";
import { contractTests } from "./suites/contract.ts";
import { refusalTests } from "./suites/refusals.ts";
import { streamTests } from "./suites/stream.ts";
import { twinTests } from "./suites/twin.ts";

const python = pythonWith("mlx", "numpy", "tokenizers");

describe.skipIf(python === null)("stacks/mlx on a CPU (skipped where no Python has mlx and tokenizers)", () => {
  const serve = () => servePythonStack("mlx", python!);
  describe("contract", () => contractTests(serve, "tiny"));
  describe("refusals", () => refusalTests(serve));
  describe("streams", () => streamTests(serve));
  describe("the float64 twin", () => twinTests(serve));
});

const withEngine = pythonWith("mlx", "mlx_lm", "numpy", "tokenizers");

describe.skipIf(withEngine === null)("MLX-LM's recipe on a CPU (skipped where no Python has mlx_lm)", () => {
  test("streams the ids that stacks/mlx decodes greedily, several clients in turn", async () => {
    await using ours = await servePythonStack("mlx", withEngine!);
    await using engine = await serveRecipe("mlx-lm/server.py", withEngine!);
    const ask = async (stack: ServedStack, prompt: number[]) => {
      const body = {
        prompt,
        max_tokens: 20,
        temperature: 0,
        ignore_eos: true,
        stream_options: { include_usage: true },
        return_token_ids: true,
      };
      const { return_token_ids: _, ...ordinary } = body;
      return (await stack.chunks("/v1/completions", stack === engine ? body : ordinary)).flatMap((c) =>
        numbersAt(c, "choices").length === 0 ? [at(c, "usage", "completion_tokens")] : numbersAt(c, "choices", 0, "token_ids"),
      );
    };
    const prompts = [[3, 4, 5, 100, 101], [77], Array.from({ length: 300 }, (_, i) => 3 + ((i * 37) % 250))];
    const served = await Promise.all(prompts.map((p) => ask(engine, p)));
    for (const [i, prompt] of prompts.entries()) expect(served[i]).toEqual(await ask(ours, prompt));
  });
});
