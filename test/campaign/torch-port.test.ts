import { join } from "node:path";
import { expect, test } from "vitest";
import { plan } from "../../coordinator/src/playbook/plan.ts";
import { loadCatalog } from "../../coordinator/src/stack/catalog.ts";
import { applySkill, boundSkills, seedBindings } from "../../coordinator/src/stack/compose.ts";
import { device } from "./world.ts";

/** The skill ahead builds on the one of graphs and takes its place, so a champion names the former alone. */
test("a champion is ported with skills that took the place of those they build on", async () => {
  const catalog = await loadCatalog(join(import.meta.dirname, "../.."), "stacks/torch");
  const chain = ["torch-batched-attention", "torch-fused-projections", "cuda-graph-decode", "async-scheduling"];
  const skills = boundSkills(
    catalog,
    chain.reduce((b, id) => applySkill(catalog, b, id), seedBindings()),
  );
  expect(skills).not.toContain("cuda-graph-decode");
  const ports = [
    { of: { campaign: "far", experimentId: "e4", commit: "0".repeat(40) }, where: "sm_90, m, far.e4", skills, logGain: 2, similarity: 0.8 },
  ];
  const input = {
    ...{
      catalog,
      leader: "e0",
      bindings: seedBindings(),
      tries: [],
      observations: [],
      remainingS: 9e4,
      experimentS: 60,
      experimentsLeft: 9,
      first: false,
      ports,
    },
    metric: { name: "output_tokens_per_second", unit: "tokens/s", direction: "maximize" as const },
  };
  const port = (isaBits: string[]) => {
    const made = plan({ ...input, device: { ...device, isaBits, cores: 4 } });
    return made.kind === "propose" ? made.hypothesis.skills : [];
  };
  expect(new Set(port(["sm_89"]))).toEqual(new Set(skills));
  // Without graphs there: what else it has.
  expect(new Set(port([]))).toEqual(new Set(["torch-batched-attention", "torch-fused-projections"]));
});
