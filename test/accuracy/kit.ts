import { mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildReference } from "../../gpu-agent/src/accuracy/index.ts";

/** The reference's executable, built once per machine (and per change of its sources) by the system's compiler, or the one in VIBESERVE_CXX. */
export function referenceExecutable(): Promise<string> {
  const compiler = (process.env["VIBESERVE_CXX"] ?? "c++").split(" ");
  const cacheDir = join(tmpdir(), `vibeserve-test-reference-${process.getuid?.() ?? 0}`);
  mkdirSync(cacheDir, { recursive: true, mode: 0o700 });
  return buildReference({ compiler, cacheDir });
}
