import { describe, expect, it } from "vitest";
import { familyOf, scopeOf, similarity, type Scope } from "../../coordinator/src/findings/scope.ts";
import { device, target } from "../campaign/world.ts";

const scope = (change: Partial<Scope> = {}): Scope => {
  const own = scopeOf({ target, device });
  if (!own) throw new Error("no scope");
  return { ...own, ...change };
};

const changes: Partial<Scope>[] = [
  { isa: "avx512_vnni" },
  { device: "nvidia", isa: "sm_90" },
  { seed: "stacks/torch" },
  { family: "qwen", model: "Qwen3-8B" },
  { model: "another-m" },
  { metric: "ttft_p50" },
  { arrival: "poisson" },
  { concurrency: 3 },
  { prompt: 5 },
  { output: 1 },
];

describe("the similarity of scopes", () => {
  it("is 1 for the same scope alone, and never negative", () => {
    expect(similarity(scope(), scope())).toBe(1);
    for (const change of changes) {
      expect(similarity(scope(), scope(change)), JSON.stringify(change)).toBeLessThan(1);
      expect(similarity(scope(), scope(change)), JSON.stringify(change)).toBeGreaterThan(0);
    }
  });

  it("is the same both ways, and falls with each further difference", () => {
    for (const one of changes)
      for (const other of changes) {
        if (Object.keys(one).some((key) => key in other)) continue;
        const [a, b] = [scope(one), scope({ ...one, ...other })];
        expect(similarity(scope(), b)).toBeLessThan(similarity(scope(), a));
        expect(similarity(a, b)).toBe(similarity(b, a));
      }
  });

  it("ranks what is nearer higher: another ISA before another kind of device, a sister model before another family", () => {
    expect(similarity(scope(), scope({ isa: "neon" }))).toBeGreaterThan(similarity(scope(), scope({ device: "apple", isa: "neon" })));
    expect(similarity(scope(), scope({ model: "m2" }))).toBeGreaterThan(similarity(scope(), scope({ model: "x", family: "x" })));
    expect(similarity(scope(), scope({ prompt: 4 }))).toBeGreaterThan(similarity(scope(), scope({ prompt: 5 })));
  });

  it("is nothing between what is simulated and what is real", () => {
    expect(similarity(scope(), scope({ simulated: false }))).toBe(0);
  });

  it("reads families and classes of load", () => {
    expect(["SmolLM2-135M-Instruct", "org/SmolLM-1.7B", "Qwen2.5-7B"].map(familyOf)).toEqual(["smollm", "smollm", "qwen"]);
    // 8 clients, 128 tokens in, 96 out: 4–15, 64–255, 64–255.
    expect(scope()).toMatchObject({ concurrency: 1, prompt: 3, output: 3, isa: "avx2", simulated: true });
    expect(scopeOf({ target, device: null })).toBeNull();
  });
});
