import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadCatalog, loadSkills } from "../../coordinator/src/stack/catalog.ts";
import { applySkill, boundSkills, composeTree, overlayTree, seedBindings } from "../../coordinator/src/stack/compose.ts";
import { parseSkillFile } from "../../coordinator/src/stack/skill-file.ts";
import { lintSkills } from "../../coordinator/src/stack/skill-lint.ts";
import { catalog } from "./world.ts";

const root = join(import.meta.dirname, "..", "..");

describe("skills that ship", () => {
  it("all parse, and each names a binding that exists and owns seams of the stack", async () => {
    const shipped = await loadCatalog(root, "stacks/cpu");
    expect(shipped.skills.size).toBeGreaterThanOrEqual(9);
    for (const [id] of shipped.skills) {
      const bindings = applySkill(shipped, seedBindings(), id);
      expect(boundSkills(shipped, bindings)).toEqual([id]);
      const tree = composeTree(shipped, bindings, []);
      expect(tree.has("stack.json")).toBe(true);
      const bound = new Set(Object.values(bindings));
      const extra = [...tree.keys()].filter((p) => /^(seed|bindings)\/.*\.cpp$/.test(p) && !bound.has(p));
      expect(extra, `${id}: a tree holds only what it binds`).toEqual([]);
    }
  });

  it("speak to a model too: their form, their references and their likeness pass the linter", async () => {
    const shipped = await loadSkills(root);
    const { problems } = await lintSkills(shipped, { find: () => Promise.resolve(undefined) });
    expect(problems).toEqual([]);
  });
});

describe("a skill file", () => {
  it.each([
    ["# no front matter", "no front matter"],
    ["---\nid: [\n---\n", "front matter is not YAML"],
    ["---\nid: a\ntitle: t\n---\n", "summary"],
    ["---\nid: a b\n---\n", "id"],
  ])("is refused with the file and the key: %j", (content, message) => {
    expect(() => parseSkillFile("skills/x/SKILL.md", content)).toThrow(new RegExp(`skills/x/SKILL.md.*${message}`, "s"));
  });
});

describe("composing", () => {
  const two = catalog([
    { id: "a", seam: "linear", stated: 2, truth: 2 },
    { id: "b", seam: "linear", stated: 2, truth: 2 },
  ]);
  const fusion = { ...two, skills: new Map(two.skills) };
  const a = two.skills.get("a");
  if (a) fusion.skills.set("a", { ...a, skill: { ...a.skill, seams: ["linear", "layer"] } });

  it("unbinds a file from all its seams when one of them is bound to another", () => {
    const bound = applySkill(fusion, seedBindings(), "a");
    expect(bound).toMatchObject({ linear: "bindings/linear/a.cpp", layer: "bindings/linear/a.cpp" });
    expect(applySkill(fusion, bound, "b")).toMatchObject({ linear: "bindings/linear/b.cpp", layer: "seed/layer.cpp" });
  });

  it("follows includes, and says who needs a file that is not there", () => {
    const files = new Map(two.files);
    files.set("bindings/linear/a.cpp", Buffer.from('#include "../lib/x.h"\n'));
    const bound = applySkill(two, seedBindings(), "a");
    expect(() => composeTree({ ...two, files }, bound, [])).toThrow("bindings/linear/a.cpp needs bindings/lib/x.h");
    files.set("bindings/lib/x.h", Buffer.from("#pragma once\n"));
    expect([...composeTree({ ...two, files }, bound, []).keys()]).toContain("bindings/lib/x.h");
  });

  it("lays a skill over a tree that a model wrote: a seam has one file, and what else the model changed stays", async () => {
    const torch = await loadCatalog(root, "stacks/torch");
    const bound = ["torch-batched-attention", "cuda-graph-decode"].reduce((b, id) => applySkill(torch, b, id), seedBindings());
    const own = (path: string, files: ReadonlyMap<string, Uint8Array>) => new Map([...files, [path, Buffer.from("# a model's\n")]]);
    const seed = composeTree(torch, seedBindings(), []);
    const scheduler = overlayTree(own("seed/attention.py", seed), torch, { from: seedBindings(), to: bound }, []);
    expect([...scheduler.keys()].sort()).toEqual([...composeTree(torch, bound, []).keys()].sort());
    const lib = own("bindings/lib/graphs.py", composeTree(torch, bound, []));
    expect([...overlayTree(lib, torch, { from: bound, to: seedBindings() }, []).keys()].sort()).toEqual(
      [...seed.keys(), "bindings/lib/graphs.py"].sort(),
    );
  });

  it("takes the variant of a file that asks for most of the bits that the device has", () => {
    const files = new Map(two.files);
    files.set("bindings/linear/a.cpp", Buffer.from('#include "../lib/t.h"\n'));
    files.set("bindings/lib/t.h", Buffer.from("all\n"));
    const bound = applySkill(two, seedBindings(), "a");
    const taken = (...bits: string[]) =>
      composeTree({ ...two, files }, bound, bits)
        .get("bindings/lib/t.h")
        ?.toString();
    expect(taken("avx2")).toBe("all\n");
    for (const [name, requires] of [
      ["plain", ""],
      ["two", " avx2 fma"],
      ["five", " avx2 fma avx512f"],
    ] as const)
      files.set(`bindings/lib/t-${name}.h`, Buffer.from(`// requires:${requires}\n`));
    files.set("bindings/lib/t-other.h", Buffer.from("#pragma once // no variant\n"));
    expect(taken()).toBe("// requires:\n");
    expect(taken("avx2", "fma", "bmi2")).toBe("// requires: avx2 fma\n");
    expect(taken("avx2", "avx512f")).toBe("// requires:\n");
    expect(taken("avx2", "fma", "avx512f")).toBe("// requires: avx2 fma avx512f\n");
  });
});
