import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { digestOf, OUT_FILE, type BuildOutput, type BuildTarget, type StackManifest } from "@vibeserve/shared";
import type { Compiler } from "../probe/compiler.ts";
import type { IsaMask } from "../probe/isa-mask.ts";
import { watchTree } from "../process/tree-watch.ts";
import { placeMounts } from "../sandbox/placement.ts";
import { BUILD_LIMITS } from "../sandbox/rlimits.ts";
import type { Mount, Sandbox } from "../sandbox/sandbox.ts";
import { spawnSandboxed } from "../sandbox/spawn.ts";
import { substitute } from "../serve/substitute.ts";
import { MANIFEST_FILE, parseManifest } from "../serve/start-stack.ts";
import type { ArtifactStore } from "../worker/job-context.ts";
import { JobError } from "../worker/job-error.ts";
import type { BuildCache, BuildEntry } from "./build-cache.ts";
import { namedVersions } from "./library-needs.ts";
import { ARCHIVE_BYTES, collectOutputs, OUT_BYTES, packOutput } from "./output-archive.ts";
import type { TreeFile } from "./tar-reader.ts";
import { refuseBeyond } from "./disassembly.ts";
import { toolchainFor, writeWrapper, type Farm, type Toolchain } from "./toolchain.ts";
import { fetchTree, writeTree, type TreeRef } from "./tree.ts";
import { tempFolder } from "../process/temp-folder.ts";

export interface BuildDeps {
  readonly sandbox: Sandbox;
  readonly compiler: Compiler | null;
  /** Of a masked agent: what it builds is disassembled, and held to the level. Absent: no mask. */
  readonly mask?: Pick<IsaMask, "level" | "objdump"> | null;
  readonly artifacts: ArtifactStore;
  readonly cache: BuildCache;
  /** Absent: it builds for its own processors only, and takes no build from elsewhere. */
  readonly farm?: Farm;
  readonly signal: AbortSignal;
  progress(phase: string): void;
}

export interface Built extends BuildEntry {
  readonly cached: boolean;
}

/**
 * Builds a candidate's tree in the sandbox, or finds it built (I9): same tree and same toolchain is the same build. `target`: another machine's, if it is not
 * for this one. Throws JobError: candidate
 * `build-failed`, `build-no-output`, `beyond-isa`, `bad-tree`, `bad-manifest`; harness `bad-archive`, `tree-mismatch`; device `no-compiler`.
 */
export async function buildStack(deps: BuildDeps, ref: TreeRef, target?: BuildTarget): Promise<Built> {
  const toolchain = toolchainFor(deps.compiler, deps.farm, target);
  const key = buildKey(ref, toolchain.compiler, deps.sandbox);
  const known = await deps.cache.find(key);
  if (known !== null) return { ...known, cached: true };
  deps.progress("fetching the tree");
  const files = await fetchTree(deps.artifacts, ref);
  const manifest = readManifest(files);
  await using temporary = await tempFolder("vs-build-");
  const scratch = temporary.path;
  const out = join(scratch, "out");
  await writeTree(join(scratch, "tree"), files);
  await mkdir(out, { mode: 0o755 });
  deps.progress("compiling");
  await compile(deps, toolchain, manifest, ref.provenance, scratch);
  const outputs = await collectOutputs(out);
  if (!outputs.some((f) => f.path === OUT_FILE && f.executable))
    throw new JobError("candidate", "build-no-output", "the build ended with exit code 0 but made no executable ${OUT}");
  if (deps.mask) {
    deps.progress("disassembling");
    await refuseBeyond({ ...deps, objdump: deps.mask.objdump }, deps.mask.level, out, outputs);
  }
  // What says how to serve it is part of the build, and covered by its digest.
  await rm(join(out, MANIFEST_FILE), { force: true, recursive: true });
  await writeFile(join(out, MANIFEST_FILE), JSON.stringify(manifest));
  return { ...(await deps.cache.add(key, out, await collectOutputs(out))), cached: false };
}

export const buildKey = (ref: TreeRef, { digest, argv }: Compiler, { python }: Pick<Sandbox, "python">): string =>
  digestOf({ v: 1, tree: ref.treeDigest, tar: ref.tree.digest, toolchain: digest, argv, ...(python ? { python: python.digest } : {}) });

/** Stores what was built for agents that did not build it. The same build is the same bytes, and sent once. */
export async function storeOutput(
  { artifacts }: Pick<BuildDeps, "artifacts">,
  built: BuildEntry,
  arch: BuildOutput["arch"],
): Promise<BuildOutput> {
  await using temporary = await tempFolder("vs-output-");
  const scratch = temporary.path;
  const tar = join(scratch, "output.tar");
  await packOutput(built.dir, built.files, tar);
  const needs = await namedVersions(built.files.map((f) => join(built.dir, f.path)));
  return { tar: await artifacts.putFile(tar, ARCHIVE_BYTES), arch, needs };
}

function readManifest(files: readonly TreeFile[]): StackManifest {
  const file = files.find((f) => f.path === MANIFEST_FILE);
  const manifest = file ? parseManifest(Buffer.from(file.bytes).toString("utf8")) : "the tree has no stack.json";
  if (typeof manifest === "string") throw new JobError("candidate", "bad-manifest", manifest);
  return manifest;
}

async function compile(
  deps: BuildDeps,
  { compiler, env, native }: Toolchain,
  manifest: StackManifest,
  provenance: "shipped" | "model",
  scratch: string,
): Promise<void> {
  const [source, out] = [join(scratch, "tree"), join(scratch, "out")];
  const wrapper = native === null ? null : join(scratch, "cxx");
  if (wrapper !== null && native !== null) await writeWrapper(wrapper, compiler, native);
  const mounts: Mount[] = [
    { from: source, to: "/src", mode: "ro" },
    { from: out, to: "/out", mode: "rw" },
    ...compiler.mounts.map((from): Mount => ({ from, mode: "ro" })),
    ...(wrapper === null ? [] : [{ from: wrapper, to: "/toolchain/cxx", mode: "ro" } as const]),
  ];
  const placement = await placeMounts(deps.sandbox, mounts, provenance, scratch);
  const tree = await spawnSandboxed(deps.sandbox, {
    argv: substitute(manifest.build, {
      "${CXX}": wrapper === null ? compiler.argv.join(" ") : placement.path(wrapper),
      "${OUT}": join(placement.path(out), OUT_FILE),
    }),
    env: deps.mask ? { MARCH: deps.mask.level } : env,
    mounts: placement.mounts,
    cwd: placement.path(source),
    cpus: null,
    limits: BUILD_LIMITS,
    provenance,
  });
  const watch = watchTree(tree, {
    memBytes: BUILD_LIMITS.memBytes,
    folders: [out],
    folderBytes: OUT_BYTES,
  });
  const exit = await tree.untilEnded(deps.signal);
  // First: an aborted build also ends with a signal, which is not the candidate's doing.
  deps.signal.throwIfAborted();
  const excess = watch.excess();
  if (excess) throw new JobError("candidate", excess.code, excess.message, tree.log.ends());
  if (exit.code === 0 && exit.signal === null) return;
  const how = exit.signal === null ? `exit code ${exit.code ?? "unknown"}` : `signal ${exit.signal}`;
  throw new JobError("candidate", "build-failed", `the build ended with ${how}`, tree.log.ends());
}
