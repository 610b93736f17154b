import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { compiler } from "./tree.ts";

const run = promisify(execFile);
const kernels = join(import.meta.dirname, "kernels");
const stack = join(import.meta.dirname, "../../stacks/cpu");
const x86 = process.arch === "x64";
// "avx2" needs the processor: a binding would not choose it otherwise either.
const families = x86 ? ["portable", "avx2"] : ["portable"];

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "kernels-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Compiles a C++ test main with parts of the stack; answers the program's path. */
async function program(name: string, parts: string[], flags: string[] = []): Promise<string> {
  const out = join(dir, name);
  const sources = [join(kernels, `${name.split("@")[0] ?? name}.cpp`), ...parts.map((p) => join(stack, p))];
  const [cxx = "c++", ...words] = compiler().split(" ");
  await run(cxx, [...words, "-O1", "-std=c++20", "-pthread", "-Wall", "-Wextra", "-Werror", ...flags, ...sources, "-o", out]);
  return out;
}
const linear = (binding: string): string[] => ["core/gguf.cpp", `bindings/linear/${binding}.cpp`, "seed/threading.cpp"];

describe("linear", () => {
  const tolerances = { "simd-f32": "1e-5", "q4-int8": "3e-3" };
  test.each(Object.entries(tolerances))(
    "%s agrees with sums in double over every tensor type and uneven shape",
    async (binding, tolerance) => {
      const twin = await program(`linear-twin@${binding}`, linear(binding));
      for (const family of families) await run(twin, [family, tolerance]);
    },
    60_000,
  );

  test("a binding off by more than the tolerance is caught", async () => {
    const twin = await program("linear-twin@strict", linear("q4-int8"));
    await expect(run(twin, ["portable", "1e-7"])).rejects.toThrow();
  }, 60_000);

  // SIMDe is Debian's libsimde-dev; where it is missing this shows as skipped, never as passed.
  test.skipIf(!x86 || !existsSync("/usr/include/simde/x86/avx512.h"))(
    "the AVX-512 and AMX kernels' own code agrees, run in emulation: 16-bit integers for few rows, bfloat16 tiles for many",
    async () => {
      const emulate = [`-DSIMD_EMULATE="${join(kernels, "emulation.h")}"`, "-w"];
      await run(await program("linear-twin@int8-emulated", linear("q4-int8"), emulate), ["avx512", "3e-3"]);
      await run(await program("linear-twin@amx-emulated", linear("q4-amx"), emulate), ["avx512", "1.2e-2"]);
    },
    240_000,
  );
});

describe("attention", () => {
  test("packed agrees with softmax in double for prefill and decode of mixed lengths", async () => {
    const twin = await program("attention-twin", ["bindings/attention/packed.cpp"]);
    for (const family of families) await run(twin, [family, "2e-2"]);
  }, 60_000);
});
