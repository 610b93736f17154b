import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, it } from "vitest";
import { findCompiler } from "../../../gpu-agent/src/probe/compiler.ts";
import { probeCpu } from "../../../gpu-agent/src/probe/cpu-features.ts";
import { levelOf } from "../../../gpu-agent/src/probe/isa-mask.ts";
import { findTool } from "../../../gpu-agent/src/sandbox/probe-sandbox.ts";
import type { DemoReport } from "../../../coordinator/src/cli/demo-fleet.ts";
import { tempDir } from "../../kit/temp-dir.ts";

const ROOT = join(import.meta.dirname, "../../..");

/** Null: two pools can be had here. */
async function missing(): Promise<string | null> {
  if (findTool("objdump") === null) return "no objdump";
  using dir = tempDir("demo-probe");
  try {
    levelOf("next", (await probeCpu(await findCompiler(null), dir.path)).bits);
    return null;
  } catch (error) {
    return String(error);
  }
}

it("npm run demo:fleet specialises two targets at once on two pools of this machine, with champions that differ", async (test) => {
  const why = await missing();
  if (why !== null) test.skip(why);
  using dir = tempDir("demo-fleet");
  const child = spawn("npm", ["run", "--silent", "demo:fleet", "--", "--json", "--data", dir.path], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  expect(`${code ?? "killed"}${code === 0 ? "" : `\n${err}\n${out}`}`).toBe("0");
  const { rows, differ } = JSON.parse(out) as DemoReport;
  expect(differ).toBe(true);
  const [full, masked] = rows;
  expect(full).toMatchObject({ outcome: "proven", mask: null });
  expect(masked).toMatchObject({
    outcome: "proven",
    mask: expect.stringMatching(/^x86-64-v[23]$/) as string,
    pool: expect.stringMatching(/-masked$/) as string,
  });
  for (const row of rows) expect(row.champion?.ratioToSeed.lo).toBeGreaterThan(1);
  expect(masked?.instructions).toMatchObject({ evex: 0, zmm: 0, tiles: 0 });
  // Both went on at the same time: neither line of facts is behind the other.
  const of = (name: string): number[] => err.split("\n").flatMap((line, i) => (line.startsWith(`${name} `) ? [i] : []));
  const [a, b] = [of(full?.target ?? ""), of(masked?.target ?? "")];
  expect(Math.min(...a)).toBeLessThan(Math.max(...b));
  expect(Math.min(...b)).toBeLessThan(Math.max(...a));
});
