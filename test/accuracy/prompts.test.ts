import { describe, expect, test } from "vitest";
import { createRng } from "../../shared/src/index.ts";
import { generatePrompt, MIN_PROMPT_TOKENS, PROMPT_KINDS } from "../../gpu-agent/src/accuracy/index.ts";
import { loadTokenizer } from "../../gpu-agent/src/tokenizer/index.ts";
import { weightsPath } from "../kit/weights.ts";

const tokenizer = loadTokenizer(weightsPath());

describe("generated prompts", () => {
  test("have exactly the asked number of tokens, template included, in every kind", () => {
    const rng = createRng("exact");
    for (const kind of PROMPT_KINDS)
      for (const targetTokens of [MIN_PROMPT_TOKENS, 31, 64, 128, 517]) {
        const { ids, messages } = generatePrompt(rng, { tokenizer, targetTokens, kind });
        expect(ids).toHaveLength(targetTokens);
        expect(tokenizer.encodeChat(messages)).toEqual(ids);
      }
  });

  test("are the same for the same seed and differ for another", () => {
    const of = (seed: string): string => JSON.stringify(generatePrompt(createRng(seed), { tokenizer, targetTokens: 100 }).messages);
    expect(of("a")).toBe(of("a"));
    expect(of("a")).not.toBe(of("b"));
  });

  test("do not repeat among a thousand", () => {
    const rng = createRng("many");
    const texts = Array.from({ length: 1000 }, () => JSON.stringify(generatePrompt(rng, { tokenizer, targetTokens: 60 }).messages));
    expect(new Set(texts).size).toBe(1000);
  });

  test("can't be shorter than the template", () => {
    expect(() => generatePrompt(createRng("x"), { tokenizer, targetTokens: 5 })).toThrow(RangeError);
  });
});
