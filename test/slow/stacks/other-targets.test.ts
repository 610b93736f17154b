import { execFile } from "node:child_process";
import { closeSync, mkdirSync, openSync, readSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { placeOf, SetupError, verifyPython, zigAsset } from "../../../coordinator/src/setup/index.ts";
import { ensureZig } from "../../../coordinator/src/setup/zig.ts";
import { loadCatalog } from "../../../coordinator/src/stack/catalog.ts";
import { applySkill, composeTree, seedBindings } from "../../../coordinator/src/stack/compose.ts";
import { cacheDir } from "../../kit/weights.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { at, type Value } from "../../stacks/served.ts";
import { serveTiny } from "../../stacks/tiny-served.ts";
import { builtStack, compiler } from "../../stacks/tree.ts";

const run = promisify(execFile);
const MINUTES = 60_000;
/** The best of each seam that asks for no instruction set. */
const SKILLS = ["two-threads", "q4-int8", "packed-kv", "fused-layer", "fused-argmax", "chunked-prefill"];

/** Composes the tree that a device with these bits would get, and builds it with its own build.sh. */
async function built(dir: string, isaBits: string[], cxx: string, env: Record<string, string> = {}): Promise<string> {
  const catalog = await loadCatalog(join(import.meta.dirname, "../../.."), "stacks/cpu");
  const tree = composeTree(
    catalog,
    SKILLS.reduce((bindings, id) => applySkill(catalog, bindings, id), seedBindings()),
    isaBits,
  );
  expect(tree.get("bindings/lib/target.h")).toEqual(catalog.files.get("bindings/lib/target-portable.h"));
  expect([...tree.keys()].filter((path) => path.startsWith("seed/"))).toEqual([]);
  for (const [path, bytes] of tree) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), bytes);
  }
  await run("sh", ["build.sh", cxx, join(dir, "stack")], { cwd: dir, env: { ...process.env, ...env } });
  return join(dir, "stack");
}

/** e_machine of an ELF file: 62 is x86-64, 183 arm64. */
function machineOf(path: string): number {
  const header = Buffer.alloc(20);
  const file = openSync(path, "r");
  readSync(file, header, 0, 20, 0);
  closeSync(file);
  return header.readUInt16LE(18);
}

test.skipIf(process.platform !== "linux")(
  "a tree with the best skill of each seam builds for arm64, warnings and all, with the pinned zig",
  async ({ skip }) => {
    const context = { cacheDir: cacheDir(), log: () => undefined, signal: undefined, python: () => verifyPython() };
    const why = await ensureZig(context).then(
      () => null,
      (error: unknown) => {
        if (error instanceof SetupError) return error.message;
        throw error;
      },
    );
    if (why !== null) skip(`zig can't be fetched: ${why}`);
    const place = placeOf(zigAsset, cacheDir());
    const cache = { ZIG_GLOBAL_CACHE_DIR: join(place, "cache"), ZIG_LOCAL_CACHE_DIR: join(place, "cache") };
    using dir = tempDir("arm64");
    const stack = await built(dir.path, ["neon", "dotprod"], `${join(place, "ziglang/zig")} c++ -target aarch64-linux-gnu`, cache);
    expect(machineOf(stack)).toBe(183);
  },
  15 * MINUTES,
);

test.skipIf(process.arch !== "x64")(
  "the same tree builds for an x86-64 without AVX2, holds no instruction of AVX, and serves what the seed serves",
  async () => {
    using dir = tempDir("x86-64");
    const stack = await built(dir.path, ["sse4_2"], `${compiler()} -march=x86-64`);
    expect(machineOf(stack)).toBe(62);
    const { stdout } = await run("objdump", ["-d", "--no-show-raw-insn", stack], { maxBuffer: 2 ** 28 });
    expect(stdout).toMatch(/%xmm\d/);
    expect(stdout).not.toMatch(/%[yz]mm\d|\tv(mov|add|mul|fmadd)[a-z0-9]*\s/);

    const sequences = [Array.from({ length: 300 }, (_, j) => 3 + ((j * j * 7) % 259)), [5, 77, 3, 200]];
    const query = sequences.map((s) => s.map(() => Array.from({ length: 262 }, (_, id) => id)));
    const scores = async (binary: string): Promise<Value> => {
      await using served = await serveTiny(binary);
      return at(await served.post("/v1/score", { sequences, query }), "logprobs");
    };
    const [mine, seeds] = [await scores(stack), await scores(await builtStack())];
    expect(worstKl(seeds, mine)).toBeLessThan(1e-3);
  },
  15 * MINUTES,
);

/** Largest KL in nat of one position's distribution: a log-probability for every id stands at each. */
function worstKl(p: Value, q: Value): number {
  if (!Array.isArray(p) || !Array.isArray(q) || p.length !== q.length) return NaN;
  if (Array.isArray(p[0])) return Math.max(...p.map((x, i) => worstKl(x, q[i]!)));
  return p.reduce<number>((sum, x, i) => sum + Math.exp(Number(x)) * (Number(x) - Number(q[i])), 0);
}
