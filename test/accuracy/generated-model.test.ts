import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { smallModel, tinyModel } from "../../coordinator/src/tiny-model/tiny-model.ts";
import { divergence } from "../../gpu-agent/src/accuracy/check/divergence.ts";
import { mutateGguf, Reference, type SequenceScores } from "../../gpu-agent/src/accuracy/index.ts";
import { planSequence } from "../../gpu-agent/src/accuracy/pool/sequence.ts";
import { loadTokenizer } from "../../gpu-agent/src/tokenizer/index.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { referenceExecutable } from "./kit.ts";

/** What the crown's check asks of a mutation for the class "exact": 20 times the limit on weights that nobody has seen. */
const NAT = 0.1;

/** As the crown's check measures it: the mutated reference's likeliest ids at each position, against the original's word on them. */
async function moved(model: string, mutated: string, seed: string, executable: string): Promise<number> {
  await mutateGguf({ from: model, to: mutated, seed });
  await using before = new Reference({ executable, model });
  await using after = new Reference({ executable, model: mutated });
  const planned = [0, 1].map((i) => planSequence(seed, "short", i, loadTokenizer(model)));
  const scores = await after.score(planned);
  const extras = ({ ids, top }: SequenceScores, from: number) => Array.from(ids, (id, k) => ({ position: from + Math.floor(k / top), id }));
  const original = await before.score(planned.map((p, i) => ({ ...p, extras: extras(scores[i]!, p.from) })));
  const kls = scores.flatMap((s, i) =>
    Array.from({ length: s.positions }, (_, p) => {
      const row = [p * s.top, (p + 1) * s.top] as const;
      const candidate = original[i]!.extras.subarray(...row);
      return divergence({ ids: s.ids.subarray(...row), reference: s.logprobs.subarray(...row), candidate });
    }),
  );
  return kls.reduce((a, b) => a + b, 0) / kls.length;
}

it("altered weights move the model that `vibeserve checkpoint` makes far enough for the crown's check, whatever it is drawn from", async () => {
  using dir = tempDir("generated-model");
  const executable = await referenceExecutable();
  const seen: number[] = [];
  for (const drawn of [1, 2, 3]) {
    const model = join(dir.path, `${drawn}.gguf`);
    writeFileSync(model, tinyModel("Q4_1", drawn, smallModel));
    for (const seed of ["a", "b"]) seen.push(await moved(model, join(dir.path, "mutated.gguf"), seed, executable));
  }
  expect(Math.min(...seen), seen.map((nat) => nat.toFixed(3)).join(" ")).toBeGreaterThan(NAT);
});
