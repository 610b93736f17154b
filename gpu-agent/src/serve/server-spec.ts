import type { Limits, Mount, Sandbox, SandboxCommand } from "../sandbox/sandbox.ts";

export interface ServeDeps {
  readonly sandbox: Sandbox;
}

/** Any server that answers GET /health on a unix socket: a candidate's build or a baseline's recipe. */
export interface ServerSpec {
  /** "${SOCKET}" in any argument is replaced by the socket's path inside the sandbox. */
  readonly argv: readonly string[];
  /** More placeholders; `at` gives the path inside of what was mounted from a path of this machine. */
  readonly substitutions?: (at: (from: string) => string) => Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, string>>;
  /** Beside the toolchain's own folders (/usr, /lib …), which are always there, read-only. */
  readonly mounts: readonly Mount[];
  /** Processors it may use, as for --cpus: "0,1". */
  readonly cpus: string;
  readonly healthTimeoutMs: number;
  readonly provenance: SandboxCommand["provenance"];
  readonly limits?: Partial<Limits>;
  readonly seal?: boolean;
  readonly counters?: boolean;
  /** Called in stop(), when no process is left and before its folder goes; gets the socket's path on this machine, beside which the server could write. */
  readonly onStopped?: (socketPath: string) => Promise<void>;
  /** Aborted while starting: the server is stopped and the signal's reason thrown. */
  readonly signal?: AbortSignal;
}

/** A tool that runs the stack and looks at it. */
export interface Under {
  /** Words before the stack's own; the placeholders of its command are replaced in them too. */
  readonly argv: readonly string[];
  /** What the tool needs beside the toolchain's own folders. */
  readonly mounts?: readonly Mount[];
  readonly counters?: boolean;
}

export interface StackSpec {
  /** Folder of a verified build, as ensureBuilt() returns it. */
  readonly buildDir: string;
  readonly modelPath: string;
  /** What the weights are called inside the sandbox, and so in the stack's answers. Default: model.gguf, or a folder's own name. */
  readonly modelName?: string;
  readonly cpus: string;
  /** How many devices the sandbox shows; default 1. */
  readonly devices?: number;
  readonly healthTimeoutMs: number;
  readonly provenance: "shipped" | "model";
  readonly signal?: AbortSignal;
  readonly under?: Under;
  readonly onStopped?: ServerSpec["onStopped"];
}
