import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { cpuList } from "../bench/cpu-clock.ts";
import type { ProcessTree } from "../process/process-tree.ts";
import { type Excess, watchTree } from "../process/tree-watch.ts";
import { placeMounts } from "../sandbox/placement.ts";
import { forAccelerator, SERVE_LIMITS } from "../sandbox/rlimits.ts";
import type { Mount } from "../sandbox/sandbox.ts";
import { spawnSandboxed } from "../sandbox/spawn.ts";
import { askHealth } from "./health.ts";
import { type RunningStack, StackError } from "./running-stack.ts";
import type { ServeDeps, ServerSpec } from "./server-spec.ts";
import { substitute } from "./substitute.ts";

/** A socket's folder holds a socket; anything more is a candidate that writes to this machine's disk. */
const SOCKET_FOLDER_BYTES = 16 * 2 ** 20;
const INSIDE = "/run/vibeserve";
const SOCKET = "http.sock";
/** First looks come fast, since a small model loads in tens of milliseconds; later ones seldom, since a look costs a connection. */
const FIRST_LOOK_MS = 5;
const LAST_LOOK_MS = 100;

/**
 * Starts a server in the sandbox and waits until GET /health answers 200. Throws StackError when the server does not come up by its own fault,
 * SandboxRefused when it may not run here, the signal's reason when aborted; whatever it throws, no process is left.
 */
export async function startServer(deps: ServeDeps, spec: ServerSpec): Promise<RunningStack> {
  spec.signal?.throwIfAborted();
  // Under the system's temporary folder, whose path is short: a unix socket's path may have 107 bytes.
  const folder = await mkdtemp(join(tmpdir(), "vs-"));
  let tree: ProcessTree | null = null;
  try {
    await chmod(folder, 0o711);
    const socketDir = join(folder, "s");
    await mkdir(socketDir, { mode: 0o700 });
    const mount: Mount = { from: socketDir, to: INSIDE, mode: "rw" };
    const placement = await placeMounts(deps.sandbox, [...spec.mounts, mount], spec.provenance, folder);
    const socketInside = join(placement.path(socketDir), SOCKET);
    const stated = { ...SERVE_LIMITS, cpuSeconds: SERVE_LIMITS.cpuSeconds * cpuList(spec.cpus).length, ...spec.limits };
    const limits = deps.sandbox.device ? forAccelerator(stated) : stated;
    tree = await spawnSandboxed(deps.sandbox, {
      argv: substitute(spec.argv, { ...spec.substitutions?.((from) => placement.path(from)), "${SOCKET}": socketInside }),
      env: spec.env,
      mounts: placement.mounts,
      cwd: deps.sandbox.kind === "bubblewrap" ? "/tmp" : socketDir,
      cpus: spec.cpus,
      limits,
      provenance: spec.provenance,
      seal: spec.seal === true,
      counters: spec.counters === true,
    });
    const watch = watchTree(tree, { memBytes: limits.memBytes, folders: [socketDir], folderBytes: SOCKET_FOLDER_BYTES });
    const socketPath = join(socketDir, SOCKET);
    await untilHealthy(tree, socketPath, spec, watch.excess);
    return runningStack(tree, socketPath, folder, deps.sandbox.kind, spec.onStopped);
  } catch (error) {
    await tree?.stop(0);
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function untilHealthy(tree: ProcessTree, socketPath: string, spec: ServerSpec, excess: () => Excess | null): Promise<void> {
  const ends = Date.now() + spec.healthTimeoutMs;
  let last: number | null = null;
  for (let waitMs = FIRST_LOOK_MS; ; waitMs = Math.min(waitMs * 1.5, LAST_LOOK_MS)) {
    spec.signal?.throwIfAborted();
    const status = await Promise.race([askHealth(socketPath), tree.exited]);
    if (status !== null && typeof status === "object") {
      await tree.logEnded();
      const passed = excess();
      if (passed) throw new StackError(passed.code, passed.message, tree.log.tail());
      const how = status.signal === null ? `exit code ${status.code ?? "unknown"}` : `signal ${status.signal}`;
      throw new StackError("exited-at-start", `the server ended with ${how} before it answered GET /health`, tree.log.tail());
    }
    if (status === 200) return;
    last = status ?? last;
    if (Date.now() > ends) {
      const answer = last === null ? "nothing answered" : `the last answer was ${last}`;
      throw new StackError("health-timeout", `no 200 from GET /health within ${spec.healthTimeoutMs} ms: ${answer}`, tree.log.tail());
    }
    await Promise.race([sleep(waitMs), tree.exited]);
  }
}

function runningStack(
  tree: ProcessTree,
  socketPath: string,
  folder: string,
  sandbox: RunningStack["sandbox"],
  onStopped?: ServerSpec["onStopped"],
): RunningStack {
  return {
    socketPath,
    exited: tree.exited,
    pids: () => tree.members().map((p) => p.pid),
    cpuSeconds: async () => tree.cpuSeconds(),
    pause: () => tree.pause(),
    resume: () => tree.resume(),
    stop: async () => {
      await tree.stop();
      await onStopped?.(socketPath);
      await rm(folder, { recursive: true, force: true });
    },
    logTail: () => tree.log.tail(),
    sandbox,
  };
}
