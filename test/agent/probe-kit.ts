import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { ToolRun } from "../../gpu-agent/src/device/vendor-tool.ts";
import type { Host } from "../../gpu-agent/src/probe/accelerator.ts";

export const FIXTURES = join(import.meta.dirname, "../fixtures/probe");

/** The sidecar of an output: where it was published. `source` null: made up; it may test robustness and is no evidence of a device. */
export const Sidecar = z.strictObject({
  source: z
    .union([
      z.strictObject({ repository: z.url(), commit: z.string().regex(/^[0-9a-f]{40}$/), path: z.string().min(1), part: z.string().min(1) }),
      z.strictObject({ document: z.url(), part: z.string().min(1) }),
      z.strictObject({ run: z.string().min(1), part: z.string().min(1) }),
    ])
    .nullable(),
  tool: z.string().min(1),
  version: z.string().nullable(),
  device: z.string().min(1),
  retrieved: z.iso.date().nullable(),
});
export type Sidecar = z.infer<typeof Sidecar>;

/** Every output by its name ("nvidia/h100-q"), with its sidecar. */
export function fixtures(): { readonly name: string; readonly sidecar: Sidecar }[] {
  return globSync("*/*.txt", { cwd: FIXTURES })
    .map((file) => file.replace(/\.txt$/, ""))
    .sort()
    .map((name) => ({ name, sidecar: Sidecar.parse(JSON.parse(readFileSync(join(FIXTURES, `${name}.source.json`), "utf8"))) }));
}

export const output = (name: string): string => readFileSync(join(FIXTURES, `${name}.txt`), "utf8");
/** A run that printed this output. */
export const ran = (name: string): ToolRun => ({ kind: "ok", text: output(name) });
export const failed = (name: string): ToolRun => ({ kind: "failed", why: output(name).trim() });
export const missing: ToolRun = { kind: "missing" };

export const host: Host = { agentId: "node-1", topology: { model: "a processor", cpus: [0, 1, 2, 3], caches: [], memBytes: 2 ** 36 } };
