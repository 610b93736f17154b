import { BenchSpec } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { benchSpec, closed } from "../bench/bench-kit.ts";

it("a comparison of fewer than 2 pairs is refused, in words: one pair has no interval", () => {
  const asked = (min: number, max: number) => BenchSpec.safeParse(benchSpec(closed(1, 1, 1), { pairs: { min, max } }));
  expect(asked(2, 2).success).toBe(true);
  for (const [min, max] of [
    [1, 4],
    [0, 2],
    [2, 1],
  ] as const)
    expect(asked(min, max).error?.issues[0]?.message).toBe("a comparison needs at least 2 pairs: one has no interval");
});
