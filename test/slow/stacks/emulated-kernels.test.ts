import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, test } from "vitest";
import { kernelProgram, kernels } from "../../stacks/kernel-program.ts";

const run = promisify(execFile);
const parts = (binding: string): string[] => ["core/gguf.cpp", `bindings/linear/${binding}.cpp`, "seed/threading.cpp"];

describe("linear", () => {
  // SIMDe is Debian's libsimde-dev; where it is missing this shows as skipped, never as passed.
  test.skipIf(process.arch !== "x64" || !existsSync("/usr/include/simde/x86/avx512.h"))(
    "the AVX-512 and AMX kernels' own code agrees, run in emulation: 16-bit integers for few rows, bfloat16 tiles for many",
    async () => {
      const emulate = [`-DSIMD_EMULATE="${join(kernels, "emulation.h")}"`, "-w"];
      await run(await kernelProgram("linear-twin", parts("q4-int8"), emulate), ["avx512", "3e-3"]);
      await run(await kernelProgram("linear-twin", parts("q4-int8-256"), emulate), ["avx512", "3e-3"]);
      await run(await kernelProgram("linear-twin", parts("q4-amx"), emulate), ["avx512", "1.2e-2"]);
    },
    600_000,
  );
});
