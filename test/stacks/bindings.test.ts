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
