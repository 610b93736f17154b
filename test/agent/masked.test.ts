import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JobResult } from "@vibeserve/shared";
import { BuildCache } from "../../gpu-agent/src/build/build-cache.ts";
import { buildStack, type BuildDeps, type Built } from "../../gpu-agent/src/build/build-stack.ts";
import { readElfCode } from "../../gpu-agent/src/build/elf-code.ts";
import { encodingOf, isBeyond } from "../../gpu-agent/src/build/instruction.ts";
import { ConfigError, readConfig } from "../../gpu-agent/src/config.ts";
import { findCompiler } from "../../gpu-agent/src/probe/compiler.ts";
import { probeCpu } from "../../gpu-agent/src/probe/cpu-features.ts";
import { readTopology } from "../../gpu-agent/src/probe/cpu-topology.ts";
import { cpuDevice, poolOf } from "../../gpu-agent/src/probe/device.ts";
import { levelOf, maskOf, type IsaLevel } from "../../gpu-agent/src/probe/isa-mask.ts";
import { findTool } from "../../gpu-agent/src/sandbox/probe-sandbox.ts";
import type { Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { startStack } from "../../gpu-agent/src/serve/start-stack.ts";
import { startBroker } from "../kit/real-broker.ts";
import { localArtifacts } from "./context-kit.ts";
import { TinyCoordinator } from "./fleet-kit.ts";
import { bubblewrap } from "./kit.ts";
import { candidateFiles, packed } from "./tree-kit.ts";

const root = mkdtempSync(join(tmpdir(), "vs-masked-test-"));
const artifacts = localArtifacts(join(root, "artifacts"));
const objdump = findTool("objdump");
const compiler = await findCompiler(null);
let sandbox: Sandbox;

beforeAll(async () => {
  sandbox = await bubblewrap();
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const AVX2 = ["avx", "f16c", "fma", "avx2", "bmi2"];
const AVX512 = [...AVX2, "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni"];

describe("a mask", () => {
  it("goes to a level below the machine's, and says what there is where it can't", () => {
    expect(levelOf("next", AVX512, "x64")).toBe("x86-64-v3");
    expect(levelOf("x86-64-v2", AVX512, "x64")).toBe("x86-64-v2");
    expect(levelOf("next", AVX2, "x64")).toBe("x86-64-v2");
    expect(levelOf("next", [...AVX2, "avx_vnni"], "x64")).toBe("x86-64-v2");
    expect(() => levelOf("x86-64-v3", AVX2, "x64")).toThrow(/avx2.*levels below its own: x86-64-v2/);
    expect(() => levelOf("next", [], "x64")).toThrow(ConfigError);
    expect(() => levelOf("next", ["neon"], "arm64")).toThrow(/arm64 has no levels/);
    expect(() => readConfig(["--isa-mask", "x86-64-v9"], {})).toThrow(/isaMask/);
  });

  it("makes another device, in a pool whose name nobody else may use", () => {
    const topology = { ...readTopology(), cpus: [0, 1] };
    const device = cpuDevice(topology, { bits: AVX2, source: "cpuid" }, "a1", null, "x86-64-v3");
    expect(device).toMatchObject({ id: "a1-cpu-masked", isa: "avx2", isaBits: AVX2 });
    expect(device.labels).toMatchObject({
      "vibeserve.dev/masked": "true",
      "vibeserve.dev/isa.mask": "x86-64-v3",
      "vibeserve.dev/cpu.isa": "avx2",
    });
    expect(poolOf(device)).toBe("cpu-avx2-2c-masked");
    expect(() => poolOf(device, "cpu-avx2-2c")).toThrow(/ends in "-masked"/);
    const plain = cpuDevice(topology, { bits: AVX2, source: "cpuid" }, "a2", null);
    expect(poolOf(plain)).toBe("cpu-avx2-2c");
    expect(() => poolOf(plain, "cpu-avx2-2c-masked")).toThrow(ConfigError);
  });
});

describe("an instruction", () => {
  const beyond = (level: IsaLevel, hex: string, text: string): boolean =>
    isBeyond(level, encodingOf(hex.split(" ").map((b) => parseInt(b, 16))), text);
  // As GNU objdump 2.40 prints them.
  it.each([
    ["62 f1 7c 48 28 c0", "vmovaps %zmm0,%zmm0", true, true],
    ["62 f1 fd 28 6f c0", "vmovdqa64 %ymm0,%ymm0", true, true],
    ["67 62 f1 7c 48 10 00", "vmovups (%eax),%zmm0", true, true],
    ["c5 f8 92 c8", "kmovw  %eax,%k1", true, true],
    ["c4 e2 7b 49 c0", "tilezero %tmm0", true, true],
    ["c4 e2 75 50 c2", "{vex} vpdpbusd %ymm2,%ymm1,%ymm0", true, true],
    ["c4 e2 75 dc c2", "vaesenc %ymm2,%ymm1,%ymm0", true, true],
    ["c5 fc 28 c0", "vmovaps %ymm0,%ymm0", true, false],
    ["c4 e2 75 98 c2", "vfmadd132ps %ymm2,%ymm1,%ymm0", true, false],
    ["c4 e2 7d 13 00", "vcvtph2ps (%rax),%ymm0", true, false],
    ["c4 e2 78 f2 c1", "andn   %ecx,%eax,%eax", true, false],
    ["f3 0f bd c0", "lzcnt  %eax,%eax", true, false],
    ["0f 28 c0", "movaps %xmm0,%xmm0", false, false],
    ["f3 0f bc c0", "tzcnt  %eax,%eax", false, false],
    ["0f 01 d0", "xgetbv", false, false],
    ["62", "(bad)", false, false],
  ])("%s (%s) is beyond x86-64-v2: %s, beyond v3: %s", (hex, text, v2, v3) => {
    expect(beyond("x86-64-v2", hex, text)).toBe(v2);
    expect(beyond("x86-64-v3", hex, text)).toBe(v3);
  });
});

describe.skipIf(process.arch !== "x64" || objdump === null || compiler === null)("a build of a masked pool", () => {
  async function build(files: Map<string, Uint8Array>, level: IsaLevel | null): Promise<Built> {
    const { tar, treeDigest } = packed(files);
    const march = level === null || compiler === null ? compiler : { ...compiler, argv: [...compiler.argv, `-march=${level}`] };
    const deps: BuildDeps = {
      ...{ sandbox, artifacts, compiler: march, cache: new BuildCache(join(root, `builds-${level ?? "plain"}`)) },
      mask: level === null ? null : { level, objdump: objdump ?? "" },
      signal: new AbortController().signal,
      progress: () => undefined,
    };
    return buildStack(deps, { tree: await artifacts.put(tar), treeDigest, provenance: "shipped" });
  }
  /** The plain candidate and one function more, which nothing calls. */
  const with_ = (code: string, more: Record<string, string> = {}): Map<string, Uint8Array> => {
    const files = candidateFiles("plain", more);
    return files.set("main.cpp", Buffer.concat([files.get("main.cpp") ?? Buffer.alloc(0), Buffer.from(`\n${code}\n`)]));
  };
  const ASM = `extern "C" void wide() { asm volatile("vpxord %zmm0,%zmm0,%zmm0"); }`;
  const TARGET = `__attribute__((target("avx512f"))) void wide(float* a) { for (int i = 0; i < 1024; i++) a[i] = a[i] * 3 + 1; }`;
  const DISPATCH = `__attribute__((target_clones("avx2", "default"))) int clones(int* a) { int s = 0; for (int i = 0; i < 1024; i++) s += a[i]; return s; }`;
  const LOOP = "void loop(float* a) { for (int i = 0; i < 1024; i++) a[i] = a[i] * 3 + 1; }";
  const O3 = { "build.sh": '#!/bin/sh\nset -e\n$1 -O3 -std=c++20 -o "$2" main.cpp\n' };

  it("has the pool's -march in ${CXX} and $MARCH", async () => {
    const build_ =
      '#!/bin/sh\nset -e\n[ "$MARCH" = x86-64-v3 ]\n$1 -dM -E -x c++ /dev/null | grep -q __AVX2__\n$1 -O1 -std=c++20 -o "$2" main.cpp\n';
    expect(await build(candidateFiles("plain", { "build.sh": build_ }), "x86-64-v3")).toMatchObject({ cached: false });
  });

  it.each([
    ["inline assembly", with_(ASM), "x86-64-v3"],
    ["a function's own target", with_(TARGET, O3), "x86-64-v3"],
    ["a path that is only chosen at run time", with_(DISPATCH, O3), "x86-64-v2"],
    ["a flag of its own", with_(LOOP, { "build.sh": '#!/bin/sh\n$1 -O3 -mavx2 -std=c++20 -o "$2" main.cpp\n' }), "x86-64-v2"],
  ] as const)("with wider instructions by %s is refused as the candidate's doing, and nobody else minds it", async (_how, files, level) => {
    const refusal = { attribution: "candidate", code: "beyond-isa", message: expect.stringMatching(`masked to ${level}`) as string };
    await expect(build(files, level)).rejects.toMatchObject(refusal);
    expect((await build(files, null)).bytes).toBeGreaterThan(0);
  });

  it("whose code stands in no section is refused, as what can be written and executed is", async () => {
    const cut =
      'printf "\\0\\0\\0\\0\\0\\0\\0\\0" | dd of="$2" bs=1 seek=40 conv=notrunc 2>&1\nprintf "\\0\\0" | dd of="$2" bs=1 seek=60 conv=notrunc 2>&1\n';
    const hidden = with_(ASM, { "build.sh": `#!/bin/sh\nset -e\n$1 -O1 -std=c++20 -o "$2" main.cpp\n${cut}` });
    await expect(build(hidden, "x86-64-v3")).rejects.toMatchObject({
      code: "beyond-isa",
      message: expect.stringContaining("in no section") as string,
    });
    const whole = readFileSync(join((await build(candidateFiles("plain"), "x86-64-v3")).dir, "stack"));
    expect(readElfCode(whole)).toMatchObject({ writable: false });
    for (let at = 64; at < 64 + 56 * whole.readUInt16LE(56); at += 56) whole.writeUInt32LE(7, at + 4);
    expect(readElfCode(whole)).toMatchObject({ writable: true });
    expect(readElfCode(whole.subarray(0, 2000))).toBeNull();
  });

  it("serves, but makes no code while it runs", async () => {
    writeFileSync(join(root, "model.gguf"), "weights");
    const jit = with_(`#include <sys/mman.h>
      static const int made = [] {
        void* both = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        void* one = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (both != MAP_FAILED || mprotect(one, 4096, PROT_READ | PROT_EXEC) == 0) _exit(9);
        return 0;
      }();`);
    const { dir } = await build(jit, "x86-64-v2");
    const start = (masked: boolean): ReturnType<typeof startStack> =>
      startStack(
        { sandbox: { ...sandbox, masked } },
        { buildDir: dir, modelPath: join(root, "model.gguf"), cpus: "0", healthTimeoutMs: 10_000, provenance: "shipped" },
      );
    await expect(start(false)).rejects.toMatchObject({
      code: "exited-at-start",
      message: expect.stringContaining("exit code 9") as string,
    });
    await (await start(true)).stop();
  });

  it("on a real agent comes to that end as a job, while the seed's kind of candidate is built", async (test) => {
    let level: IsaLevel;
    try {
      ({ level } = maskOf("next", await probeCpu(compiler, join(root, "probe")), compiler));
    } catch {
      test.skip("this machine has nothing below it");
      return;
    }
    const fleet = new TinyCoordinator(await startBroker(join(root, "broker")), join(root, "agents"));
    try {
      await fleet.open();
      await fleet.agent("held", "p-masked", "--isa-mask", "next");
      const outcomeOf = async (files: Map<string, Uint8Array>): Promise<JobResult["outcome"] | undefined> => {
        const job = await fleet.build("p-masked", files);
        await fleet.until("build", () => fleet.results.some((r) => r.jobId === job.id), 120_000);
        return fleet.results.find((r) => r.jobId === job.id)?.outcome;
      };
      expect(await outcomeOf(with_(ASM))).toMatchObject({ status: "failed", failure: { attribution: "candidate", code: "beyond-isa" } });
      expect(await outcomeOf(candidateFiles("plain"))).toMatchObject({ status: "built" });
      const info = await fleet.registered("held");
      expect(info).toMatchObject({ pools: ["p-masked"], engines: [], devices: [{ id: "held-cpu-masked" }] });
      expect(info?.devices[0]?.labels["vibeserve.dev/isa.mask"]).toBe(level);
    } finally {
      await fleet.close();
    }
  });
});
