import { existsSync, readFileSync } from "node:fs";
import { homedir, hostname } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { AgentId, Id, ListenAddress, parseJoinLine, type JoinLine } from "@vibeserve/shared";
import { z } from "zod";
import { ConfigError } from "./config-error.ts";

export { ConfigError };

/** Everything that an agent can be told. Flag > environment > file > default. */
export const AgentConfig = z.strictObject({
  /** The agent's private folder (mode 0700): key, spool, caches, evaluator's data. */
  data: z.string(),
  /** Broker addresses to dial; null: of the coordinator that it joins, or has joined, else nats://127.0.0.1:4222. */
  servers: z.array(z.string().min(1)).min(1, "at least one broker address is needed: --servers nats://host:port").nullable().default(null),
  /** PEM file of the authority that the broker's certificate is verified against; null: no TLS, or the one that a join line pinned. */
  ca: z.string().nullable().default(null),
  /** File with this agent's claim on a NATS cluster, for --servers; null: the broker needs none. */
  claim: z.string().nullable().default(null),
  /** How to come in; the text is a secret and never shown. */
  join: z
    .string()
    .nullable()
    .default(null)
    .transform((text, context): JoinLine | null => {
      const line = text === null ? null : parseJoinLine(text);
      if (line === null && text !== null) context.addIssue("not a join line as `vibeserve agents token` prints it: ADDRESS#TOKEN…, whole");
      return line;
    }),
  /** File with the pod's bound service account token, for a line without a token. */
  serviceAccountToken: z.string().nullable().default(null),
  /** Where probes are answered over plain HTTP; null: nowhere. */
  http: ListenAddress.nullable().default(null),
  seedFile: z.string(),
  agentId: AgentId,
  /** Assets shared by all clones of the product: bwrap, weights, baselines. Read-only for the agent, but for what it installs itself. */
  cache: z.string(),
  /** Pool whose jobs it takes; null: made from what the probe finds, such as "cpu-avx2-2c". */
  pool: Id.nullable().default(null),
  /** Held to a level of instructions below the machine's ("next": the one below), as a pool of its own; null: what the machine has. See docs/masked-pools.md. */
  isaMask: z.enum(["next", "x86-64-v3", "x86-64-v2"]).nullable().default(null),
  /** Name of the lock that all agents and coding CLIs of a machine share; null: made from the machine's id. */
  machineLock: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,80}$/)
    .nullable()
    .default(null),
  /** Folder that agents in several containers of one node share: they wait for each other through it; null: none. */
  lockDir: z.string().nullable().default(null),
  /** Compiler command; null: the system's. */
  cxx: z.string().nullable().default(null),
  /** bubblewrap; null: the system's, or the cache's. */
  bwrap: z.string().nullable().default(null),
  /** What stacks get as `python3` in the sandbox, baselines' environments and the reference too; null: the system's. */
  python: z.string().nullable().default(null),
  /** Python of baselines' environments and of the reference alone, never shown to a stack; null: the one above. */
  baselinePython: z.string().nullable().default(null),
  /** Folder in which the vendors' tools (nvidia-smi, rocminfo, …) are looked for first; null: the system's folders alone. */
  vendorTools: z.string().nullable().default(null),
  unsafeNoSandbox: z.boolean(),
  /** It registers no device: it builds for the devices of others, and measures nothing. */
  builderOnly: z.boolean(),
  /** Compilers of device code for --builder-only; null: the system's. */
  nvcc: z.string().nullable().default(null),
  hipCxx: z.string().nullable().default(null),
  /** What builds and artifacts may take in the data folder, together, in GiB. */
  quotaGib: z.coerce.number().positive(),
  logLevel: z.enum(["debug", "info", "warn", "error", "silent"]),
  /** Ends, as after SIGTERM, when it had no job for so long, in seconds; null: never. For agents whose machine is wanted elsewhere: worker pods, batch allocations. */
  exitWhenIdle: z.coerce.number().min(0).nullable().default(null),
  /** How long a running job may go on after SIGTERM, in ms. */
  drainMs: z.coerce.number().int().min(0),
});
export type AgentConfig = z.infer<typeof AgentConfig>;

export interface Invocation {
  readonly config: AgentConfig;
  /** Print what would be registered (id, public key, pools, device) as JSON and end: an operator enrols the agent with it. */
  readonly describe: boolean;
}

const USAGE = `usage: gpu-agent --join LINE | --servers nats://HOST:PORT[,…] [options]
  --join LINE           what "vibeserve agents token" printed: joins that coordinator; needed once
  --join-file FILE      the same, read from a file, so that no one sees it in the list of processes
  --service-account-token FILE
                        a Kubernetes token, for a line that holds none
  --ca FILE             PEM of the broker's authority, for --servers tls://HOST:PORT
  --claim FILE          its user's claim, for --servers of a NATS cluster
  --data DIR            private folder, mode 0700 (default .vibeserve/agent)
  --servers LIST        broker addresses, comma-separated (default: of the coordinator it joined, else nats://127.0.0.1:4222)
  --seed-file FILE      NKey seed, made on first use (default <data>/agent.nk)
  --agent-id ID         default: this machine's name
  --pool NAME           default: from the probe, such as cpu-avx2-2c
  --isa-mask LEVEL      use no instructions beyond x86-64-v3, x86-64-v2, or the "next" level below this machine's
  --machine-lock NAME   agents of one name work one at a time (default: one name a machine)
  --lock-dir DIR        a folder that the containers of this node share: their agents work one at a time
  --cache DIR           assets (default $XDG_CACHE_HOME/vibeserve)
  --cxx COMMAND         C++20 compiler (default: the system's)
  --bwrap FILE          bubblewrap (default: the system's, or the cache's)
  --python FILE         what stacks get as python3, and the Python of baselines and of the reference (default: the system's)
  --baseline-python FILE
                        Python of baselines and of the reference alone (default: --python's)
  --vendor-tools DIR    where nvidia-smi, rocminfo and their like are looked for first
  --builder-only        build for the devices of others: register no device, measure nothing
  --nvcc FILE           CUDA compiler of --builder-only (default: the system's)
  --hip-cxx FILE        Clang that compiles HIP for --builder-only (default: the system's)
  --quota-gib N         builds and artifacts kept in the private folder (default 8)
  --http HOST:PORT      answer probes (/livez, /readyz) there, over plain HTTP (default: nowhere)
  --config FILE         JSON with any of these, in camelCase (default <data>/agent.json where it exists)
  --drain-ms N          a running job may go on this long after SIGTERM (default 10000)
  --exit-when-idle S    end after S seconds without a job (default: never)
  --log-level LEVEL     debug, info, warn, error or silent (default info)
  --unsafe-no-sandbox   run code written by a model even where there is no sandbox
  --describe            print id, public key, pools and device as JSON, and end
Each option can also be given as VIBESERVE_AGENT_<OPTION>.`;

const SWITCHES = ["unsafe-no-sandbox", "builder-only"] as const;
const kebab = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
/** Flag → setting: the same name in kebab-case. */
const SETTINGS = new Map(Object.keys(AgentConfig.shape).map((key) => [kebab(key), key]));
/** Flags that take a value. */
const OPTIONS = [...[...SETTINGS.keys()].filter((flag) => !SWITCHES.some((s) => s === flag)), "join-file"];

const FileConfig = AgentConfig.omit({ data: true }).partial();

/** Reads flags, environment and file. Throws ConfigError. */
export function readConfig(argv: readonly string[], env: NodeJS.ProcessEnv = process.env): Invocation {
  const flags = parseFlags(argv);
  const variable = (flag: string): string | undefined => env[`VIBESERVE_AGENT_${flag.toUpperCase().replaceAll("-", "_")}`];
  const text = (flag: string): string | undefined => {
    const value = flags[flag] ?? variable(flag);
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const data = resolve(text("data") ?? ".vibeserve/agent");
  const given: Record<string, unknown> = { ...readFile(data, flags), data };
  for (const flag of OPTIONS) {
    const value = text(flag);
    if (value === undefined || flag === "data") continue;
    if (flag === "join-file") given["join"] = readLine(value);
    else given[SETTINGS.get(flag) ?? flag] = flag === "servers" ? value.split(",") : value;
  }
  for (const flag of SWITCHES) if (flags[flag] === true || variable(flag) === "1") given[SETTINGS.get(flag) ?? flag] = true;
  const parsed = AgentConfig.safeParse({ ...defaults(data, env), ...given });
  if (parsed.success) return { config: parsed.data, describe: flags.describe === true };
  throw new ConfigError(parsed.error.issues.map((i) => `gpu-agent: ${i.path.join(".")}: ${i.message}`).join("\n"));
}

function defaults(data: string, env: NodeJS.ProcessEnv): z.input<typeof AgentConfig> {
  const xdg = env["XDG_CACHE_HOME"] ?? "";
  return {
    data,
    seedFile: join(data, "agent.nk"),
    agentId:
      hostname()
        .split(".")[0]
        ?.replace(/[^A-Za-z0-9_-]/g, "-")
        .slice(0, 40) || "agent",
    cache: join(isAbsolute(xdg) ? xdg : join(homedir(), ".cache"), "vibeserve"),
    unsafeNoSandbox: false,
    builderOnly: false,
    quotaGib: 8,
    logLevel: "info",
    drainMs: 10_000,
  };
}

type Flags = Partial<Record<string, string | boolean>>;

function parseFlags(argv: readonly string[]): Flags {
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        ...Object.fromEntries([...OPTIONS, "config"].map((name) => [name, { type: "string" as const }])),
        ...Object.fromEntries([...SWITCHES, "describe", "help"].map((name) => [name, { type: "boolean" as const }])),
      },
    });
    if (values["help"] === true) throw new ConfigError(USAGE, 0);
    return values;
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`gpu-agent: ${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
  }
}

function readLine(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new ConfigError(`gpu-agent: --join-file: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function readFile(data: string, flags: Flags): Record<string, unknown> {
  const named = typeof flags["config"] === "string" ? resolve(flags["config"]) : null;
  const path = named ?? join(data, "agent.json");
  if (!existsSync(path)) {
    if (named !== null) throw new ConfigError(`gpu-agent: there is no configuration file ${named}`);
    return {};
  }
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new ConfigError(`gpu-agent: ${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const parsed = FileConfig.safeParse(json);
  // As it was written: it is read again with what flags and environment say.
  if (parsed.success) return json as Record<string, unknown>;
  throw new ConfigError(parsed.error.issues.map((i) => `gpu-agent: ${path}: ${i.path.join(".") || "(root)"}: ${i.message}`).join("\n"));
}

/** Folders of a list such as LD_LIBRARY_PATH, before those that this process was given. */
export function prepended(folders: string, variable: string, env: NodeJS.ProcessEnv = process.env): string {
  return [folders, env[variable] ?? ""].filter((part) => part !== "").join(":");
}

/** Makes every temporary file of this process and its children appear in `dir`. */
export function useTemporaryFolder(dir: string): void {
  process.env["TMPDIR"] = dir;
}
