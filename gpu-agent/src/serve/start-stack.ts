import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { issuesOf, OUT_FILE, parseJson, StackManifest } from "@vibeserve/shared";
import { JobError } from "../worker/job-error.ts";
import { type RunningStack, StackError } from "./running-stack.ts";
import type { ServeDeps, StackSpec } from "./server-spec.ts";
import { startServer } from "./start-server.ts";

/** In a build's folder: the stack.json that it was built from. */
export const MANIFEST_FILE = "stack.json";

/** Starts a candidate's build as its stack.json says. Throws StackError for the candidate's failures; see startServer. */
export async function startStack(deps: ServeDeps, spec: StackSpec): Promise<RunningStack> {
  const manifest = await readManifest(spec.buildDir);
  await checkReadable(spec.modelPath);
  const { warmup, resources } = manifest;
  const isFolder = (await stat(spec.modelPath)).isDirectory();
  const modelName = spec.modelName ?? (isFolder ? basename(spec.modelPath) : "model.gguf");
  const { devices = 1 } = spec;
  const { maxDevices = 1 } = resources;
  if (devices > maxDevices)
    throw new StackError("bad-manifest", `stack.json: it is to serve on ${devices} devices, and resources.maxDevices is ${maxDevices}`, "");
  const from = performance.now();
  const stack = await startServer(deps, {
    argv: [...(spec.under?.argv ?? []), ...manifest.serve],
    substitutions: (at) => ({
      "${OUT}": join(at(spec.buildDir), OUT_FILE),
      "${MODEL}": at(spec.modelPath),
      "${CPUS}": spec.cpus,
      "${DEVICES}": String(devices),
    }),
    env: {},
    mounts: [
      { from: spec.buildDir, to: "/stack", mode: "ro" },
      { from: spec.modelPath, to: `/model/${modelName}`, mode: "ro" },
      ...(spec.under?.mounts ?? []),
    ],
    cpus: spec.cpus,
    healthTimeoutMs: spec.healthTimeoutMs + 1000 * (warmup?.seconds ?? 0),
    provenance: spec.provenance,
    // A tool that runs it (callgrind) makes code itself.
    seal: spec.under === undefined,
    counters: spec.under?.counters === true,
    limits: { memBytes: resources.memBytes * devices },
    ...(spec.signal ? { signal: spec.signal } : {}),
    ...(spec.onStopped ? { onStopped: spec.onStopped } : {}),
  });
  return warmup ? { ...stack, warmupS: (performance.now() - from) / 1000 } : stack;
}

/** stack.json as it was built. Throws StackError `bad-manifest`. */
export async function readManifest(buildDir: string): Promise<StackManifest> {
  const text = await readFile(join(buildDir, MANIFEST_FILE), "utf8").catch((error: unknown) => {
    throw new StackError("bad-manifest", `stack.json: ${error instanceof Error ? error.message : String(error)}`, "");
  });
  const manifest = parseManifest(text);
  if (typeof manifest === "string") throw new StackError("bad-manifest", manifest, "");
  return manifest;
}

/** What a stack.json says, or in words what is wrong with it. */
export function parseManifest(text: string): StackManifest | string {
  const json = parseJson(text);
  if (json === undefined) return `stack.json is not JSON: ${text.slice(0, 200)}`;
  const parsed = StackManifest.safeParse(json);
  return parsed.success ? parsed.data : `stack.json: ${issuesOf(parsed.error)}`;
}

/** As root the candidate runs as another user; unreadable weights would look like the candidate's failure. */
async function checkReadable(modelPath: string): Promise<void> {
  const info = await stat(modelPath).catch(() => null);
  if (info === null) throw new JobError("harness", "weights-missing", `there are no weights at ${modelPath}`);
  const wanted = info.isDirectory() ? 0o005 : 0o004;
  if (process.getuid?.() === 0 && (info.mode & wanted) !== wanted)
    throw new JobError("harness", "weights-unreadable", `${modelPath} can't be read by the user that candidates run as: chmod -R a+rX`);
}
