import { join } from "node:path";
import type { ExecSpec, Outcome } from "@vibeserve/shared";
import { fetchTree, writeTree } from "../build/tree.ts";
import type { Compiler } from "../probe/compiler.ts";
import { watchTree } from "../process/tree-watch.ts";
import { placeMounts } from "../sandbox/placement.ts";
import type { Limits, Mount } from "../sandbox/sandbox.ts";
import { spawnSandboxed } from "../sandbox/spawn.ts";
import type { BuilderDeps } from "./build.job.ts";
import type { JobContext, JobHandler } from "./job-context.ts";
import { tempFolder } from "../process/temp-folder.ts";

type Ran = Extract<Outcome, { status: "ran" }>;

/**
 * What one command gets: a compiler and a small program fit into 2 GiB and 64 processes, an accident does not hurt the machine. Wall time is bounded by the
 * job's own `limitMs`, so CPU time needs no bound beside the one that builds have.
 */
const EXEC_LIMITS: Limits = { memBytes: 2 * 2 ** 30, processes: 64, openFiles: 1024, cpuSeconds: 1200, fileBytes: 256 * 2 ** 20 };
/** The tree, what was compiled from it, and what was written beside it. */
const FOLDER_BYTES = 512 * 2 ** 20;
/** Kept of each stream, see Outcome. */
const KEPT_BYTES = 16_000;
const INSIDE = "/src";

/**
 * Job `exec`: one command in a writable copy of the tree, which is gone afterwards. It sees the toolchain read-only (the compiler's words in $CXX), and
 * neither weights nor network nor anything of the evaluator's. Whatever the command comes to is an answer, also a limit that stopped it; SandboxRefused
 * where code of this provenance may not run here.
 */
export function execHandler(builder: Pick<BuilderDeps, "compiler">): JobHandler<ExecSpec> {
  return async (job, ctx) => {
    ctx.progress("fetching the tree");
    const files = await fetchTree(ctx.artifacts, job.spec);
    await using temporary = await tempFolder("vs-exec-");
    const scratch = temporary.path;
    await writeTree(join(scratch, "tree"), files);
    ctx.progress("running the command");
    return await runIn(scratch, builder.compiler, job.spec, ctx);
  };
}

async function runIn(scratch: string, compiler: Compiler | null, spec: ExecSpec, ctx: JobContext): Promise<Ran> {
  const folder = join(scratch, "tree");
  const readable = (compiler?.mounts ?? []).map((from): Mount => ({ from, mode: "ro" }));
  const placement = await placeMounts(ctx.sandbox, [{ from: folder, to: INSIDE, mode: "rw" }, ...readable], spec.provenance, scratch);
  const startedMs = performance.now();
  const tree = await spawnSandboxed(ctx.sandbox, {
    argv: spec.argv,
    env: compiler === null ? {} : { CXX: compiler.argv.join(" ") },
    mounts: placement.mounts,
    cwd: placement.path(folder),
    cpus: ctx.device.cpus,
    limits: EXEC_LIMITS,
    provenance: spec.provenance,
  });
  const watch = watchTree(tree, { memBytes: EXEC_LIMITS.memBytes, folders: [folder], folderBytes: FOLDER_BYTES });
  const late = AbortSignal.timeout(spec.limitMs);
  const ended = tree.exited.then(() => ({ timedOut: late.aborted, seconds: (performance.now() - startedMs) / 1000 }));
  const exit = await tree.untilEnded(AbortSignal.any([ctx.signal, late]));
  const { timedOut, seconds } = await ended;
  ctx.signal.throwIfAborted();
  const excess = watch.excess();
  const exitCode = timedOut || excess !== null || exit.signal !== null ? null : exit.code;
  ctx.log(`${JSON.stringify(spec.argv)}: ${timedOut ? "stopped at its limit" : `exit code ${exitCode ?? exit.signal ?? "none"}`}`);
  const note = excess === null ? "" : `\nstopped: ${excess.message}\n`;
  const [stdout, stderr] = [tree.stdout.tailBytes(KEPT_BYTES), tree.stderr.tailBytes(KEPT_BYTES - note.length) + note];
  return { status: "ran", exitCode, timedOut, stdout, stderr, seconds };
}
