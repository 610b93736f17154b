import { uptime } from "node:os";
import type { VendorTools } from "./vendor-tool.ts";

export interface KernelLine {
  /** How long ago, in seconds. */
  readonly ageS: number;
  readonly text: string;
}

/** The kernel's messages that match; null where this user may not read them. */
export async function kernelLines(tools: VendorTools, pattern: RegExp): Promise<KernelLine[] | null> {
  const run = await tools.run("dmesg", []);
  if (run.kind !== "ok") return null;
  const now = uptime();
  return run.text.split("\n").flatMap((line) => {
    const [, at, text] = /^\[\s*(\d+\.\d+)\] (.*)$/.exec(line) ?? [];
    return at !== undefined && text !== undefined && pattern.test(text) ? [{ ageS: Math.max(0, now - Number(at)), text }] : [];
  });
}
