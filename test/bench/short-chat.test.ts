import { createRng } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { shortChats } from "../../gpu-agent/src/bench/short-chat.ts";
import { loadTokenizer } from "../../gpu-agent/src/tokenizer/index.ts";
import { weightsPath } from "../kit/weights.ts";

it("a short chat has exactly the asked number of tokens, and no two are alike", () => {
  const tokenizer = loadTokenizer(weightsPath());
  const draw = shortChats(tokenizer);
  const rng = createRng("short");
  const seen = new Set<string>();
  for (let i = 0; i < 200; i++) {
    const tokens = 16 + (i % 8);
    const { messages, ids } = draw(rng, tokens);
    expect(ids).toHaveLength(tokens);
    expect(ids).toEqual(tokenizer.encodeChat(messages));
    seen.add(JSON.stringify(messages));
  }
  expect(seen.size).toBe(200);
  expect(() => draw(rng, 14)).toThrow(/the template alone takes 14/);
});
