import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sha256, type ArtifactRef, type BuildOutput, type BuildTarget } from "@vibeserve/shared";
import { BuildCache } from "../../gpu-agent/src/build/build-cache.ts";
import { buildStack, storeOutput, type BuildDeps, type Built } from "../../gpu-agent/src/build/build-stack.ts";
import { ensureBuilt } from "../../gpu-agent/src/build/ensure-built.ts";
import { lacking, namedVersions, offeredVersions } from "../../gpu-agent/src/build/library-needs.ts";
import { packOutput, unpackOutput } from "../../gpu-agent/src/build/output-archive.ts";
import { tarHeader } from "../../gpu-agent/src/build/tar-header.ts";
import type { Farm } from "../../gpu-agent/src/build/toolchain.ts";
import type { TreeRef } from "../../gpu-agent/src/build/tree.ts";
import { findCompiler, type Compiler } from "../../gpu-agent/src/probe/compiler.ts";
import { findFarm } from "../../gpu-agent/src/probe/farm.ts";
import { findTool } from "../../gpu-agent/src/sandbox/probe-sandbox.ts";
import type { Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { startStack } from "../../gpu-agent/src/serve/start-stack.ts";
import { localArtifacts } from "./context-kit.ts";
import { bubblewrap } from "./kit.ts";
import { candidateFiles, packed } from "./tree-kit.ts";

const root = mkdtempSync(join(tmpdir(), "vs-farm-test-"));
const artifacts = localArtifacts(join(root, "artifacts"));
const objdump = findTool("objdump");
let sandbox: Sandbox;
let compiler: Compiler | null;
let farm: Farm;
let machines = 0;

beforeAll(async () => {
  [sandbox, compiler] = await Promise.all([bubblewrap(), findCompiler(null)]);
  const nvcc = process.env["VIBESERVE_TEST_NVCC"] ?? null;
  farm = await findFarm({ compiler, device: null, accelerators: [], all: true, offered: await offeredVersions(), nvcc, hipCxx: null });
}, 120_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A machine with a cache of its own; without a compiler it can only take what others built. */
function machine(more: Partial<BuildDeps> = {}): BuildDeps & { said: string[] } {
  const said: string[] = [];
  const dir = join(root, `machine-${machines++}`);
  mkdirSync(dir);
  const signal = new AbortController().signal;
  return {
    sandbox,
    compiler,
    artifacts,
    farm,
    cache: new BuildCache(dir),
    signal,
    progress: (phase) => void said.push(phase),
    said,
    ...more,
  };
}

async function treeOf(files: Map<string, Uint8Array>): Promise<TreeRef & { tree: ArtifactRef }> {
  const { tar, treeDigest } = packed(files);
  return { tree: await artifacts.put(tar), treeDigest, provenance: "shipped" };
}

const target = (march: string, more: Partial<BuildTarget> = {}): BuildTarget => ({
  ...{ arch: "x64", march, more: [], libc: null, gpu: null },
  ...more,
});
const x64 = process.arch === "x64";

describe("what a builder made", () => {
  let tree: TreeRef & { tree: ArtifactRef };
  let built: Built;
  let output: BuildOutput;
  beforeAll(async () => {
    tree = await treeOf(candidateFiles("plain"));
    built = await buildStack(machine(), tree, target("x86-64-v3"));
    output = await storeOutput({ artifacts }, built, "x64");
  });
  const stack = () => ({ ...tree, buildDigest: built.buildDigest, output });

  it.skipIf(!x64)("is taken, checked and served by a machine that can't compile, read-only, and taken once", async () => {
    const other = machine({ compiler: null });
    const dir = await ensureBuilt(other, stack());
    expect(statSync(join(dir, "stack")).mode & 0o7777).toBe(0o555);
    expect(statSync(join(dir, "stack.json")).mode & 0o7777).toBe(0o444);
    expect(other.said).toEqual(["fetching the build"]);
    expect(await ensureBuilt(other, stack())).toBe(dir);
    expect(other.said).toHaveLength(1);
    writeFileSync(join(root, "model.gguf"), "weights");
    const spec = { buildDir: dir, modelPath: join(root, "model.gguf"), cpus: "0", healthTimeoutMs: 10_000, provenance: "shipped" } as const;
    await (await startStack({ sandbox }, spec)).stop();
  });

  it.skipIf(!x64)("names its libraries' versions; where the machine's are older it is built there", async () => {
    expect(output.needs.find((n) => n.name === "GLIBC")?.min).toMatch(/^2\./);
    expect(lacking(output.needs, await offeredVersions())).toBeNull();
    const old = machine({ farm: { ...farm, offered: [{ name: "GLIBC", min: "2.17" }] } });
    await ensureBuilt(old, stack());
    expect(old.said.join("\n")).toMatch(/building here: what was built elsewhere needs GLIBC 2\.\d+ \(there is 2\.17\)/);
    expect(old.said).toContain("compiling");
    expect(await namedVersions([join(root, "nothing")])).toEqual([]);
  });

  it("that is another build, lost, or too old for a machine without a compiler, is refused with the reason", async () => {
    const forged = machine();
    await expect(ensureBuilt(forged, { ...stack(), buildDigest: sha256("other") })).rejects.toMatchObject({ code: "build-differs" });
    expect(readdirSync(join(root, `machine-${machines - 1}`)).filter((name) => name.startsWith("draft"))).toEqual([]);
    const lost = { ...output, tar: { digest: sha256("lost"), bytes: 4 } };
    await expect(ensureBuilt(machine({ compiler: null }), { ...stack(), output: lost })).rejects.toThrow();
    const arm = machine({ compiler: null });
    await expect(ensureBuilt(arm, { ...stack(), output: { ...output, arch: "arm64" } })).rejects.toMatchObject({ code: "no-compiler" });
  });

  it("is the same artifact whoever packs it, whenever", async () => {
    const again = await buildStack(machine(), tree, target("x86-64-v3"));
    expect(await storeOutput({ artifacts }, again, "x64")).toEqual(output);
  });
});

describe("an archive of a build", () => {
  const file = (path: string, text = "x", executable = false) => ({ path, sha256: sha256(text), bytes: text.length, executable });
  const archive = (...parts: Buffer[]): string => {
    const path = join(root, `hostile-${machines++}.tar`);
    writeFileSync(path, Buffer.concat([...parts, Buffer.alloc(1024)]));
    return path;
  };
  const padded = (text: string): Buffer => Buffer.concat([Buffer.from(text), Buffer.alloc(-text.length & 511)]);
  const altered = (change: (header: Buffer) => void): Buffer => {
    const header = Buffer.from(tarHeader(file("a")));
    change(header);
    header.write("        ", 148, "latin1");
    header.write(
      `${header
        .reduce((a, b) => a + b, 0)
        .toString(8)
        .padStart(6, "0")}\0 `,
      148,
      "latin1",
    );
    return Buffer.concat([header, padded("x")]);
  };

  it.each([
    ["a symbolic link", altered((h) => h.write("2", 156))],
    ["a hard link", altered((h) => h.write("1", 156))],
    ["a device", altered((h) => h.write("3", 156))],
    ["a pipe", altered((h) => h.write("6", 156))],
    ["a path that climbs", altered((h) => h.write("../a\0", 0))],
    ["an absolute path", altered((h) => h.write("/etc/a\0", 0))],
    ["its owner's rights", altered((h) => h.write("0004755\0", 100))],
    ["a file larger than the archive", altered((h) => h.write("00000777777\0", 124))],
    ["a path twice", Buffer.concat([tarHeader(file("a")), padded("x"), tarHeader(file("a")), padded("y")])],
    ["a folder where a file is", Buffer.concat([tarHeader(file("a")), padded("x"), tarHeader(file("a/b")), padded("y")])],
  ])("with %s is refused, and nothing stays", async (_what, bytes) => {
    const into = join(root, `out-${machines++}`);
    mkdirSync(into);
    const cache = new BuildCache(into);
    await expect(cache.receive("k".repeat(64), (draft) => unpackOutput(archive(bytes), draft))).rejects.toThrow();
    expect(readdirSync(into)).toEqual([]);
    expect(existsSync(join(root, "a"))).toBe(false);
  });

  it("that unpacks to more than a build may hold is refused before the first file", async () => {
    const header = (path: string) => tarHeader({ path, bytes: 300 * 2 ** 20, executable: false });
    const path = join(root, "huge.tar");
    writeFileSync(path, header("a"));
    const at = 512 + 300 * 2 ** 20;
    for (const [offset, bytes] of [
      [at, header("b")],
      [2 * at, Buffer.alloc(1024)],
    ] as const)
      execFileSync("dd", [`of=${path}`, "bs=512", `seek=${offset / 512}`, "conv=notrunc", "status=none"], { input: bytes });
    const into = join(root, "huge-out");
    mkdirSync(into);
    await expect(unpackOutput(path, into)).rejects.toMatchObject({
      code: "build-bad-output",
      message: expect.stringContaining("limit") as string,
    });
    expect(readdirSync(into)).toEqual([]);
  });

  it("keeps names of up to 512 bytes, empty files and the executable bit", async () => {
    const dir = join(root, "long");
    const deep = `${"d".repeat(120)}/${"ä".repeat(60)}`;
    mkdirSync(join(dir, "d".repeat(120)), { recursive: true });
    writeFileSync(join(dir, deep), "x", { mode: 0o755 });
    writeFileSync(join(dir, "empty"), "");
    const files = [file(deep, "x", true), file("empty", "")];
    await packOutput(dir, files, join(root, "long.tar"));
    mkdirSync(join(root, "long-out"));
    expect(new Set(await unpackOutput(join(root, "long.tar"), join(root, "long-out")))).toEqual(new Set(files));
    execFileSync("tar", ["-tf", join(root, "long.tar")]);
  });

  it("can't be made of names that no machine takes", async () => {
    const dir = join(root, "names");
    mkdirSync(dir);
    writeFileSync(join(dir, "a\nb"), "x");
    await expect(packOutput(dir, [file("a\nb")], join(root, "names.tar"))).rejects.toMatchObject({ attribution: "candidate" });
  });
});

describe("a build for another machine", () => {
  const LOOP = "void loop(float* a) { for (int i = 0; i < 4096; i++) a[i] = a[i] * 3 + 1; }";
  const native = (flags: string): Map<string, Uint8Array> => {
    const files = candidateFiles("plain", { "build.sh": `#!/bin/sh\nset -e\n$1 -O3 ${flags} -std=c++20 -o "$2" main.cpp\n` });
    return files.set("main.cpp", Buffer.concat([files.get("main.cpp") ?? Buffer.alloc(0), Buffer.from(`\n${LOOP}\n`)]));
  };
  const registers = async (to: BuildTarget, flags: string): Promise<{ ymm: boolean; zmm: boolean }> => {
    const { dir } = await buildStack(machine(), await treeOf(native(flags)), to);
    const text = execFileSync(objdump ?? "", ["-d", join(dir, "stack")], { maxBuffer: 2 ** 28 }).toString();
    return { ymm: text.includes("%ymm"), zmm: text.includes("%zmm") };
  };

  it.skipIf(!x64 || objdump === null).each(["-march=native -mtune=native", '-march="$MARCH"'])(
    "means that machine by %s, and holds nothing that it lacks",
    async (flags) => {
      expect(await registers(target("x86-64-v4"), `${flags} -mprefer-vector-width=512`)).toMatchObject({ zmm: true });
      expect(await registers(target("x86-64-v3"), flags)).toEqual({ ymm: true, zmm: false });
      expect(await registers(target("x86-64-v2"), flags)).toEqual({ ymm: false, zmm: false });
    },
    60_000,
  );

  it.skipIf(!x64)("that names no instructions is byte for byte what that machine would build", async () => {
    const tree = await treeOf(candidateFiles("plain"));
    const own = await buildStack(machine(), tree);
    expect(await buildStack(machine(), tree, target("x86-64-v2"))).toMatchObject({ buildDigest: own.buildDigest, cached: false });
  });

  it("of an architecture that has no compiler here fails as the device's", async () => {
    const none = machine({ farm: { ...farm, compilers: new Map(), gpus: new Map() } });
    const half = machine({ farm: { ...farm, gpus: new Map() } });
    const refusal = { attribution: "device", code: "no-compiler" };
    const tree = await treeOf(native(""));
    await expect(buildStack(none, tree, target("armv8.2-a", { arch: "arm64" }))).rejects.toMatchObject(refusal);
    await expect(buildStack(half, tree, target("x86-64-v3", { gpu: "sm_90a" }))).rejects.toMatchObject(refusal);
  });

  it("of an accelerator's architecture is built by an agent that has such a one, which finds device compilers by itself", async () => {
    const there = machine({ farm: { ...farm, gpus: new Map(), accelerators: new Set(["sm_90a"]) } });
    const told = candidateFiles("plain", {
      "build.sh":
        '#!/bin/sh\nset -e\n[ "$GPU_ARCH" = sm_90a ] && [ "$MARCH" = x86-64-v2 ] && [ -z "$NVCC" ]\n$1 -O1 -std=c++20 -o "$2" main.cpp\n',
    });
    const made = await buildStack(there, await treeOf(told), target("x86-64-v2", { gpu: "sm_90a" }));
    expect(readdirSync(made.dir)).toContain("stack");
  });

  it("of arm64 is arm64 code for that processor (skipped without aarch64-linux-gnu-g++)", async (test) => {
    if (!farm.compilers.has("arm64") || process.arch === "arm64") return test.skip();
    const dot = "#include <arm_neon.h>\nint32x4_t dot(int32x4_t a, int8x16_t b) { return vdotq_s32(a, b, b); }";
    const files = native("-mcpu=native");
    files.set("main.cpp", Buffer.concat([files.get("main.cpp") ?? Buffer.alloc(0), Buffer.from(`\n${dot}\n`)]));
    const { dir } = await buildStack(machine(), await treeOf(files), target("armv8.2-a+dotprod", { arch: "arm64" }));
    expect(readFileSync(join(dir, "stack")).readUInt16LE(18)).toBe(183);
    const cross = findTool("aarch64-linux-gnu-objdump");
    if (cross) expect(execFileSync(cross, ["-d", join(dir, "stack")], { maxBuffer: 2 ** 28 }).toString()).toMatch(/\bsdot\b/);
  }, 60_000);

  it.for([
    ["sm_90a", '$NVCC -cubin -o "$2.cubin" kernel.cu', "\x7fELF"],
    ["sm_89", '$NVCC -cubin -o "$2.cubin" kernel.cu', "\x7fELF"],
    ["gfx942", '$HIPCXX --cuda-device-only --no-gpu-bundle-output -o "$2.hsaco" kernel.cu', "\x7fELF"],
  ] as const)(
    "of %s has its compiler and architecture in its environment (skipped without that compiler)",
    { timeout: 120_000 },
    async ([gpu, command, magic], test) => {
      if (!farm.gpus.has(gpu)) return test.skip(`no compiler for ${gpu}`);
      const files = candidateFiles("plain", {
        "build.sh": `#!/bin/sh\nset -e\n[ "$GPU_ARCH" = ${gpu} ]\n${command}\n$1 -O1 -std=c++20 -o "$2" main.cpp\n`,
        "kernel.cu": "__attribute__((global)) void scale(float* a) { a[0] *= 3; }\n",
      });
      const { dir, files: made } = await buildStack(machine(), await treeOf(files), target("x86-64-v3", { gpu }));
      const code = made.find((f) => /cubin|hsaco/.test(f.path))?.path ?? "";
      expect(readFileSync(join(dir, code)).toString("latin1")).toMatch(new RegExp(`^${magic}`));
    },
  );
});
