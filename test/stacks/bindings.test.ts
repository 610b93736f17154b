import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { kernelProgram } from "./kernel-program.ts";

const run = promisify(execFile);
const x86 = process.arch === "x64";
// "avx2" needs the processor: a binding would not choose it otherwise either.
const families = x86 ? ["portable", "avx2"] : ["portable"];

// A binding of one family alone: elsewhere its twin runs in emulation, in the slow tests.
const hasAvx512Vnni = x86 && existsSync("/proc/cpuinfo") && /\bavx512_vnni\b/.test(readFileSync("/proc/cpuinfo", "utf8"));

const linear = (binding: string): string[] => ["core/gguf.cpp", `bindings/linear/${binding}.cpp`, "seed/threading.cpp"];

describe("linear", () => {
  const tolerances = { "simd-f32": "1e-5", "q4-int8": "3e-3" };
  test.each(Object.entries(tolerances))(
    "%s agrees with sums in double over every tensor type and uneven shape",
    async (binding, tolerance) => {
      const twin = await kernelProgram("linear-twin", linear(binding));
      for (const family of families) await run(twin, [family, tolerance]);
    },
    60_000,
  );

  test.skipIf(!hasAvx512Vnni)(
    "q4-int8-256 agrees with sums in double",
    async () => {
      await run(await kernelProgram("linear-twin", linear("q4-int8-256")), ["avx512", "3e-3"]);
    },
    60_000,
  );

  test("a binding off by more than the tolerance is caught", async () => {
    const twin = await kernelProgram("linear-twin", linear("q4-int8"));
    await expect(run(twin, ["portable", "1e-7"])).rejects.toThrow();
  }, 60_000);
});

describe("attention", () => {
  test("packed agrees with softmax in double for prefill and decode of mixed lengths", async () => {
    const twin = await kernelProgram("attention-twin", ["bindings/attention/packed.cpp"]);
    for (const family of families) await run(twin, [family, "2e-2"]);
  }, 60_000);
});

describe("head", () => {
  test.each(["0", "0,1", "0-2"])(
    "fused-argmax picks what the sampler picks from whole rows, and the lowest of equal ids, on the processors %s",
    async (cpus) => {
      const parts = ["head/fused-argmax", "threading/pool"].map((name) => `bindings/${name}.cpp`);
      const twin = await kernelProgram("head-twin", [...parts, "seed/linear.cpp", "core/gguf.cpp", "core/sample.cpp"]);
      await run(twin, [cpus]);
    },
    60_000,
  );
});

describe("threading", () => {
  test.skipIf(process.platform !== "linux")(
    "pool runs each part once and none past a barrier too early, with one to three threads and with threads that may not start",
    async () => {
      const twin = await kernelProgram("pool-twin", ["bindings/threading/pool.cpp"]);
      const said = async (cpus: string, mayStart: number): Promise<string[]> =>
        (await run(twin, [cpus, String(mayStart)], { timeout: 20_000 })).stdout.trim().split(" ");
      const [one, sum] = await said("0", 0);
      expect(one).toBe("1");
      expect(await said("0,1", 1)).toEqual(["2", sum]);
      // A processor that is not there is no reason to do without a thread.
      expect(await said("0-2", 2)).toEqual(["3", sum]);
      expect(await said("0-2", 1)).toEqual(["2", sum]);
      expect(await said("0-2", 0)).toEqual(["1", sum]);
    },
    60_000,
  );
});
