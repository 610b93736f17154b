import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { BuildCache } from "../../../gpu-agent/src/build/build-cache.ts";
import { buildStack } from "../../../gpu-agent/src/build/build-stack.ts";
import { findCompiler } from "../../../gpu-agent/src/probe/compiler.ts";
import { findTool } from "../../../gpu-agent/src/sandbox/probe-sandbox.ts";
import type { Sandbox } from "../../../gpu-agent/src/sandbox/sandbox.ts";
import { applySkill, composeTree, seedBindings } from "../../../coordinator/src/stack/compose.ts";
import { loadCatalog } from "../../../coordinator/src/stack/catalog.ts";
import { localArtifacts } from "../../agent/context-kit.ts";
import { bubblewrap } from "../../agent/kit.ts";
import { packed } from "../../agent/tree-kit.ts";
import { tempDir } from "../../kit/temp-dir.ts";

const compiler = await findCompiler(null);
const objdump = findTool("objdump");
const catalog = await loadCatalog(join(import.meta.dirname, "../../.."), "stacks/cpu");
/** One of every seam that has a skill for any processor. */
const SKILLS = ["q4-int8", "chunked-prefill", "two-threads", "packed-kv", "fused-layer", "fused-argmax"];
const AVX2 = ["avx", "f16c", "fma", "avx2", "bmi2"];
let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await bubblewrap();
});

// Nothing is run: any x86-64 machine with binutils shows this.
describe.skipIf(process.arch !== "x64" || objdump === null || compiler === null)("on a masked pool", () => {
  async function build(level: "x86-64-v3" | "x86-64-v2", skills: readonly string[], bits: readonly string[]): Promise<number> {
    using dir = tempDir("masked-trees");
    const artifacts = localArtifacts(join(dir.path, "artifacts"));
    const bindings = skills.reduce((bound, id) => applySkill(catalog, bound, id), seedBindings());
    const { tar, treeDigest } = packed(composeTree(catalog, bindings, bits));
    const deps = {
      ...{ sandbox, artifacts, compiler: compiler && { ...compiler, argv: [...compiler.argv, `-march=${level}`] } },
      ...{ cache: new BuildCache(join(dir.path, "builds")), mask: { level, objdump: objdump ?? "" } },
      ...{ signal: new AbortController().signal, progress: () => undefined },
    };
    return (await buildStack(deps, { tree: await artifacts.put(tar), treeDigest, provenance: "shipped" })).bytes;
  }

  it.each([
    ["x86-64-v3", AVX2],
    ["x86-64-v2", []],
  ] as const)("of %s the seed, and all that is bound on it, pass as they are composed for its device", async (level, bits) => {
    expect(await build(level, [], bits)).toBeGreaterThan(0);
    expect(await build(level, SKILLS, bits)).toBeGreaterThan(0);
  });

  it("a tree that was composed for a better device is refused", async () => {
    const better = [...AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"];
    await expect(build("x86-64-v3", ["q4-int8"], better)).rejects.toMatchObject({ attribution: "candidate", code: "beyond-isa" });
  });
});
