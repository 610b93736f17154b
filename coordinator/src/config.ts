import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Id, ListenAddress, TurnRole } from "@vibeserve/shared";
import { parse } from "yaml";
import { z } from "zod";
import { messageOf } from "./process/message-of.ts";
import { natsServerAsset, placeOf, readSetupConfig, xdgFolder } from "./setup/index.ts";

/** Whose machines answer for Anthropic's models. */
const Cloud = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("bedrock"), region: z.string().min(1) }),
  z.strictObject({ kind: z.literal("vertex"), region: z.string().min(1), project: z.string().min(1) }),
]);
export type Cloud = z.infer<typeof Cloud>;

/**
 * The only reader of the environment in this package. Each setting: command-line flag, else environment variable, else `<data>/config.yaml`, else
 * default.
 */
export const Settings = z.strictObject({
  /** The installation: holds stacks/, prompts/, targets/ and gpu-agent/. */
  root: z.string(),
  /** Everything of this installation's campaigns: broker, keys, logs, git, report. */
  data: z.string(),
  /** Shared by all data folders of the user: nats-server, weights, builds. */
  cache: z.string(),
  natsServer: z.string(),
  /** Interface and port of the broker; -1: a random free port. */
  host: z.string(),
  port: z.int().min(-1).max(65535),
  /** HOST or HOST:PORT that other machines dial; null: where it listens, or this machine's name where it listens everywhere. */
  advertise: z.string().nullable(),
  /** Where probes and metrics are answered over plain HTTP; null: nowhere. */
  http: z.strictObject({ host: z.string(), port: z.int() }).nullable(),
  /** PEM files of the broker's own certificate; null: made by itself where other machines may dial. */
  tls: z.strictObject({ cert: z.string(), key: z.string(), ca: z.string() }).nullable(),
  /** A NATS cluster that others run, instead of a server of our own; null: none. */
  nats: z
    .strictObject({
      servers: z.array(z.string()).min(1),
      /** Folder `coordinator` that `vibeserve keys` wrote. */
      keysDir: z.string(),
      /** Servers that store each message; null: three where there are so many, else one. */
      replicas: z.int().min(1).max(5).nullable(),
    })
    .nullable(),
  /** Which service accounts of a Kubernetes cluster may bring agents in; null: none. */
  kubernetes: z
    .strictObject({
      /** The API server's `--service-account-issuer`; its discovery document is read from there. */
      issuer: z.string(),
      audience: z.string(),
      /** namespace:name. */
      accounts: z.array(z.string()).min(1),
      /** PEM file of the API server's authority; null: the system's authorities. */
      caFile: z.string().nullable(),
      /** Sent as bearer: most clusters answer discovery only to service accounts. Read each time, since it is replaced while one runs. */
      tokenFile: z.string().nullable(),
    })
    .nullable(),
  /** File of worker pods' classes, where this coordinator runs in a Kubernetes cluster and makes pods for jobs (docs/worker-pods.md); null: it makes none. */
  workerPods: z
    .strictObject({
      file: z.string(),
      /** URL of the API server. */
      api: z.string(),
      caFile: z.string().nullable(),
      tokenFile: z.string().nullable(),
    })
    .nullable(),
  /** The pool that this machine's own agent joins; null: the one that its probe names after the hardware. */
  pool: Id.nullable(),
  /** What stacks get as `python3` on this machine's own agent; null: the system's. */
  python: z.string().nullable(),
  agentId: Id,
  logLevel: z.enum(["debug", "info", "warn", "error"]),
  /** The coordinator's log goes to standard output too, which then holds nothing else: what a container's runtime collects. Default: to its file alone. */
  logStdout: z.boolean(),
  /** Folder of named contexts: `<contexts>/<name>.json`. */
  contexts: z.string(),
  /** auto: champions whose tools or driver have changed are tested again as soon as their agent registers; ask: `vibeserve requalify` does it. */
  requalify: z.enum(["auto", "ask"]),
  /** auto: devices of pools that have several measure a known stack against itself, by age and when they are suspect; off: only a person lifts suspicion. */
  canary: z.enum(["auto", "off"]),
  /** Where models are asked; the key is for the coordinator's eyes alone: no log, no record and no other process has it. */
  anthropic: z.strictObject({
    apiKey: z.string().nullable(),
    baseUrl: z.string().nullable(),
    /** Another cloud that serves the models; its client finds its own credentials. */
    cloud: Cloud.nullable(),
    /** For every role that names none of its own; a list "a,b" names what is asked where the one before is gone. */
    model: z.string(),
    models: z.partialRecord(TurnRole, z.string()),
  }),
  /** A chat-completions endpoint, such as vLLM's or SGLang's. */
  openai: z.strictObject({ apiKey: z.string().nullable(), baseUrl: z.string().nullable(), model: z.string().nullable() }),
  /** What all campaigns of this data folder together may spend on models, US dollars; null: each only has its own budget. */
  usd: z.number().min(0).nullable(),
  /** The coding CLI of agent `command`: a recipe's name. */
  cli: z.string(),
  /** The model that it is told to use; null: as for the others. */
  cliModel: z.string().nullable(),
  /** Exchanges with models are written to `<data>/transcripts`. */
  record: z.boolean(),
  /** Where executables (git) are looked for. */
  path: z.string(),
});
export type Settings = z.infer<typeof Settings>;

export class ConfigError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "ConfigError";
  }
}

/** Settings that a person may give; strings from the environment are converted by the schema. */
const Given = z
  .strictObject({
    cache: z.string(),
    natsServer: z.string(),
    host: z.string(),
    port: z.coerce.number().int().min(-1).max(65535),
    advertise: z.string().regex(/^[A-Za-z0-9._-]+(:\d{1,5})?$/, "must be HOST or HOST:PORT"),
    http: ListenAddress,
    tlsCert: z.string(),
    tlsKey: z.string(),
    tlsCa: z.string(),
    natsUrl: z.string().regex(/^(tls|nats):\/\/[^,\s]+(,(tls|nats):\/\/[^,\s]+)*$/, "must be tls://HOST:PORT[,tls://HOST:PORT…]"),
    natsKeys: z.string(),
    natsReplicas: z.coerce.number().int().min(1).max(5),
    kubernetesIssuer: z.url({ protocol: /^https?$/ }),
    kubernetesAudience: z.string(),
    kubernetesAccounts: z.string().regex(/^[a-z0-9.-]+:[a-z0-9.-]+(,[a-z0-9.-]+:[a-z0-9.-]+)*$/, "must be NAMESPACE:NAME[,…]"),
    kubernetesCa: z.string(),
    kubernetesToken: z.string(),
    workerPods: z.string(),
    kubernetesApiCa: z.string(),
    kubernetesApiToken: z.string(),
    kubernetesApi: z.url({ protocol: /^https?$/ }),
    pool: Id,
    python: z.string(),
    agentId: Id,
    logLevel: Settings.shape.logLevel,
    usd: z.coerce.number().min(0),
    requalify: Settings.shape.requalify,
    canary: Settings.shape.canary,
  })
  .partial();
type Given = z.infer<typeof Given>;
type Flags = z.input<typeof Given> & { data?: string };

const VARIABLES: Record<keyof Given, string> = {
  cache: "VIBESERVE_CACHE",
  natsServer: "VIBESERVE_NATS_SERVER",
  host: "VIBESERVE_HOST",
  port: "VIBESERVE_PORT",
  pool: "VIBESERVE_POOL",
  agentId: "VIBESERVE_AGENT_ID",
  logLevel: "VIBESERVE_LOG_LEVEL",
  python: "VIBESERVE_PYTHON",
  usd: "VIBESERVE_USD",
  advertise: "VIBESERVE_ADVERTISE",
  http: "VIBESERVE_HTTP",
  tlsCert: "VIBESERVE_TLS_CERT",
  tlsKey: "VIBESERVE_TLS_KEY",
  tlsCa: "VIBESERVE_TLS_CA",
  natsUrl: "VIBESERVE_NATS_URL",
  natsKeys: "VIBESERVE_NATS_KEYS",
  natsReplicas: "VIBESERVE_NATS_REPLICAS",
  kubernetesIssuer: "VIBESERVE_KUBERNETES_ISSUER",
  kubernetesAudience: "VIBESERVE_KUBERNETES_AUDIENCE",
  kubernetesAccounts: "VIBESERVE_KUBERNETES_ACCOUNTS",
  kubernetesCa: "VIBESERVE_KUBERNETES_CA",
  kubernetesToken: "VIBESERVE_KUBERNETES_TOKEN_FILE",
  workerPods: "VIBESERVE_WORKER_PODS",
  kubernetesApi: "VIBESERVE_KUBERNETES_API",
  kubernetesApiCa: "VIBESERVE_KUBERNETES_API_CA",
  kubernetesApiToken: "VIBESERVE_KUBERNETES_API_TOKEN_FILE",
  requalify: "VIBESERVE_REQUALIFY",
  canary: "VIBESERVE_CANARY",
};

/** Throws ConfigError naming the source and the key of what is wrong. */
export function loadSettings(flags: Flags, env: NodeJS.ProcessEnv = process.env): Settings {
  const data = resolve(flags.data ?? env["VIBESERVE_DATA"] ?? ".vibeserve");
  const fromEnv = Object.fromEntries(
    Object.entries(VARIABLES).flatMap(([key, name]) => (env[name] === undefined || env[name] === "" ? [] : [[key, env[name]]])),
  );
  const { data: _data, ...given } = flags;
  const chosen: Given = {
    ...check(`${data}/config.yaml`, readFile(join(data, "config.yaml"))),
    ...check("environment", fromEnv, VARIABLES),
    ...check("command line", given),
  };
  const cache = resolve(chosen.cache ?? readSetupConfig(env).cacheDir);
  return {
    root: resolve(env["VIBESERVE_ROOT"] ?? join(import.meta.dirname, "../..")),
    data,
    cache,
    natsServer: resolve(chosen.natsServer ?? placeOf(natsServerAsset, cache)),
    host: chosen.host ?? "127.0.0.1",
    port: chosen.port ?? -1,
    advertise: chosen.advertise ?? null,
    http: chosen.http ?? null,
    tls: tlsOf(chosen),
    nats: natsOf(chosen),
    kubernetes: kubernetesOf(chosen),
    workerPods: workerPodsOf(chosen),
    pool: chosen.pool ?? null,
    python: chosen.python ?? orNull(env["VIBESERVE_AGENT_PYTHON"]),
    agentId: chosen.agentId ?? "local",
    logLevel: chosen.logLevel ?? "info",
    logStdout: env["VIBESERVE_LOG_STDOUT"] === "1",
    requalify: chosen.requalify ?? "ask",
    canary: chosen.canary ?? "auto",
    contexts: join(xdgFolder(env, "XDG_CONFIG_HOME", ".config"), "vibeserve", "contexts"),
    anthropic: {
      apiKey: credentialOf("ANTHROPIC_API_KEY", env),
      baseUrl: orNull(env["ANTHROPIC_BASE_URL"]),
      cloud: cloudOf(orNull(env["VIBESERVE_ANTHROPIC_ON"])),
      model: orNull(env["VIBESERVE_MODEL"]) ?? "claude-opus-5-5",
      models: Object.fromEntries(
        TurnRole.options.flatMap((role) => {
          const named = orNull(env[`VIBESERVE_MODEL_${role.toUpperCase()}`]);
          return named === null ? [] : [[role, named]];
        }),
      ),
    },
    openai: {
      apiKey: credentialOf("OPENAI_API_KEY", env),
      baseUrl: orNull(env["OPENAI_BASE_URL"]),
      model: orNull(env["VIBESERVE_OPENAI_MODEL"]),
    },
    usd: chosen.usd ?? null,
    cli: orNull(env["VIBESERVE_CLI"]) ?? "claude-code",
    cliModel: orNull(env["VIBESERVE_CLI_MODEL"]),
    record: env["VIBESERVE_RECORD"] === "1",
    path: env["PATH"] ?? "/usr/bin:/bin",
  };
}

function tlsOf({ tlsCert: cert, tlsKey: key, tlsCa: ca }: Given): Settings["tls"] {
  if (cert === undefined && key === undefined && ca === undefined) return null;
  if (cert !== undefined && key !== undefined && ca !== undefined) return { cert: resolve(cert), key: resolve(key), ca: resolve(ca) };
  throw new ConfigError("a certificate of your own needs all three: VIBESERVE_TLS_CERT, VIBESERVE_TLS_KEY, VIBESERVE_TLS_CA (PEM files)");
}

function natsOf({ natsUrl: url, natsKeys: keys, natsReplicas: replicas }: Given): Settings["nats"] {
  if (url === undefined && keys === undefined) return null;
  if (url === undefined || keys === undefined)
    throw new ConfigError(
      'a NATS cluster needs both: VIBESERVE_NATS_URL, and VIBESERVE_NATS_KEYS (the folder coordinator of "vibeserve keys")',
    );
  return { servers: url.split(","), keysDir: resolve(keys), replicas: replicas ?? null };
}

/** Where a pod finds its cluster's authority and its own token; used for the cluster's own API server alone. */
const POD = "/var/run/secrets/kubernetes.io/serviceaccount";

const podFile = (name: string) => (existsSync(join(POD, name)) ? join(POD, name) : null);
const podFileFor = (url: string) => (name: string) => (/^https:\/\/kubernetes\.default\b/.test(url) ? podFile(name) : null);

function workerPodsOf({
  workerPods: file,
  kubernetesApi: api = "https://kubernetes.default.svc",
  ...given
}: Given): Settings["workerPods"] {
  if (file === undefined) return null;
  const inPod = podFileFor(api);
  const [caFile, tokenFile] = [given.kubernetesApiCa ?? inPod("ca.crt"), given.kubernetesApiToken ?? inPod("token")];
  return { file: resolve(file), api: api.replace(/\/$/, ""), caFile, tokenFile };
}

function kubernetesOf(given: Given): Settings["kubernetes"] {
  const { kubernetesIssuer: issuer, kubernetesAccounts: accounts } = given;
  if (issuer === undefined && accounts === undefined) return null;
  if (issuer === undefined || accounts === undefined)
    throw new ConfigError("service accounts need both: VIBESERVE_KUBERNETES_ISSUER and VIBESERVE_KUBERNETES_ACCOUNTS");
  const inPod = podFileFor(issuer);
  return {
    issuer,
    audience: given.kubernetesAudience ?? "vibeserve",
    accounts: accounts.split(","),
    caFile: given.kubernetesCa ?? inPod("ca.crt"),
    tokenFile: given.kubernetesToken ?? inPod("token"),
  };
}

/** The API server of the cluster that this process is a pod of, or the one that VIBESERVE_KUBERNETES_API names. Throws ConfigError where there is neither. */
export function inClusterApi(
  namespace: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): { url: string; caFile: string | null; tokenFile: string | null; namespace: string } {
  const [host, port] = [orNull(env["KUBERNETES_SERVICE_HOST"]), env["KUBERNETES_SERVICE_PORT"] ?? "443"];
  const named = orNull(env["VIBESERVE_KUBERNETES_API"]);
  if (named === null && host === null)
    throw new ConfigError("this is not a pod: set VIBESERVE_KUBERNETES_API to the API server's address, or write files with --out DIR");
  const own = podFile("namespace");
  const where = namespace ?? (own === null ? null : readFileSync(own, "utf8").trim());
  if (where === null) throw new ConfigError("name the namespace of the Secrets: --namespace NAME");
  return {
    url: named ?? `https://${host?.includes(":") ? `[${host}]` : host}:${port}`,
    caFile: orNull(env["VIBESERVE_KUBERNETES_API_CA"]) ?? podFile("ca.crt"),
    tokenFile: orNull(env["VIBESERVE_KUBERNETES_API_TOKEN_FILE"]) ?? podFile("token"),
    namespace: where,
  };
}

/** "bedrock:REGION" or "vertex:PROJECT:REGION". */
function cloudOf(text: string | null): Cloud | null {
  if (text === null) return null;
  const [kind, first, second] = text.split(":");
  const parsed = Cloud.safeParse(kind === "vertex" ? { kind, project: first, region: second } : { kind, region: first });
  if (parsed.success) return parsed.data;
  throw new ConfigError(`environment: VIBESERVE_ANTHROPIC_ON: ${JSON.stringify(text)} is neither bedrock:REGION nor vertex:PROJECT:REGION`);
}

const orNull = (value: string | undefined): string | null => (value === undefined || value === "" ? null : value);

/** A credential by its variable, or from the file that VARIABLE_FILE names, which keeps it out of the environment. Throws ConfigError. */
export function credentialOf(variable: string, env: NodeJS.ProcessEnv = process.env): string | null {
  const file = orNull(env[`${variable}_FILE`]);
  if (file === null) return orNull(env[variable]);
  try {
    return orNull(readFileSync(file, "utf8").trim());
  } catch (error) {
    throw new ConfigError(`environment: ${variable}_FILE: ${messageOf(error)}`);
  }
}

/** The environment of processes that this one starts; with `changes` on top. */
export function childEnvironment(changes: Record<string, string>, env: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  return { ...env, ...changes };
}

/** Compiled code of an agent's earlier start, which its very first file is read with: 14 MB less while it is idle. */
const COMPILED = { NODE_COMPILE_CACHE: join(import.meta.dirname, "../../node_modules/.cache/node-compile") };

/** The same without what only the coordinator may hold: a gpu-agent runs strangers' code. */
export function agentEnvironment(env: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries({ ...COMPILED, ...env }).filter(
      ([name]) => !/^(ANTHROPIC|CLAUDE|OPENAI|AWS|GOOGLE)_|_(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)$/.test(name),
    ),
  );
}

/** What a daemon without a parent gives itself at its start, and does not hand on (gpu-agent/src/start/config.ts); one with a channel has it from here: 2 MB less. */
const LEAN = {
  MALLOC_TRIM_THRESHOLD_: "65536",
  MALLOC_MMAP_THRESHOLD_: "69632",
  MALLOC_ARENA_MAX: "2",
  MSGPACKR_NATIVE_ACCELERATION_DISABLED: "true",
};

/** Of a gpu-agent that stays and takes jobs. */
export const daemonEnvironment = (): NodeJS.ProcessEnv => ({ ...LEAN, ...agentEnvironment() });

/** For a coordinator of its own in `data`, on this machine alone, whatever the settings say of brokers, clusters and other machines. */
export const aloneIn = (data: string, settings: Settings): Settings => ({
  ...{ ...settings, data, host: "127.0.0.1", port: -1, advertise: null },
  ...{ http: null, tls: null, nats: null, kubernetes: null, workerPods: null },
});

function check(source: string, given: unknown, names: Partial<Record<string, string>> = {}): Given {
  const parsed = Given.safeParse(given);
  if (parsed.success) return Object.fromEntries(Object.entries(parsed.data).filter(([, value]) => value !== undefined));
  const [issue] = parsed.error.issues;
  const key = issue?.code === "unrecognized_keys" ? issue.keys.join(", ") : String(issue?.path[0] ?? "");
  const allowed = issue?.code === "unrecognized_keys" ? `; allowed: ${Object.keys(VARIABLES).join(", ")}` : "";
  throw new ConfigError(`${source}: ${names[key] ?? key}: ${issue?.message ?? "not valid"}${allowed}`);
}

function readFile(path: string): unknown {
  if (!existsSync(path)) return {};
  try {
    return parse(readFileSync(path, "utf8")) ?? {};
  } catch (error) {
    throw new ConfigError(`${path}: ${messageOf(error)}`);
  }
}
