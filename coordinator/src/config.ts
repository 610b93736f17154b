import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Id, TurnRole } from "@vibeserve/shared";
import { parse } from "yaml";
import { z } from "zod";
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
  /** PEM files of the broker's own certificate; null: made by itself where other machines may dial. */
  tls: z.strictObject({ cert: z.string(), key: z.string(), ca: z.string() }).nullable(),
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
  /** The pool that this machine's own agent joins; null: the one that its probe names after the hardware. */
  pool: Id.nullable(),
  agentId: Id,
  logLevel: z.enum(["debug", "info", "warn", "error"]),
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
    tlsCert: z.string(),
    tlsKey: z.string(),
    tlsCa: z.string(),
    kubernetesIssuer: z.url({ protocol: /^https?$/ }),
    kubernetesAudience: z.string(),
    kubernetesAccounts: z.string().regex(/^[a-z0-9.-]+:[a-z0-9.-]+(,[a-z0-9.-]+:[a-z0-9.-]+)*$/, "must be NAMESPACE:NAME[,…]"),
    kubernetesCa: z.string(),
    kubernetesToken: z.string(),
    pool: Id,
    agentId: Id,
    logLevel: Settings.shape.logLevel,
    usd: z.coerce.number().min(0),
    requalify: Settings.shape.requalify,
    canary: Settings.shape.canary,
  })
  .partial();
type Given = z.infer<typeof Given>;

const VARIABLES: Record<keyof Given, string> = {
  cache: "VIBESERVE_CACHE",
  natsServer: "VIBESERVE_NATS_SERVER",
  host: "VIBESERVE_HOST",
  port: "VIBESERVE_PORT",
  pool: "VIBESERVE_POOL",
  agentId: "VIBESERVE_AGENT_ID",
  logLevel: "VIBESERVE_LOG_LEVEL",
  usd: "VIBESERVE_USD",
  advertise: "VIBESERVE_ADVERTISE",
  tlsCert: "VIBESERVE_TLS_CERT",
  tlsKey: "VIBESERVE_TLS_KEY",
  tlsCa: "VIBESERVE_TLS_CA",
  kubernetesIssuer: "VIBESERVE_KUBERNETES_ISSUER",
  kubernetesAudience: "VIBESERVE_KUBERNETES_AUDIENCE",
  kubernetesAccounts: "VIBESERVE_KUBERNETES_ACCOUNTS",
  kubernetesCa: "VIBESERVE_KUBERNETES_CA",
  kubernetesToken: "VIBESERVE_KUBERNETES_TOKEN_FILE",
  requalify: "VIBESERVE_REQUALIFY",
  canary: "VIBESERVE_CANARY",
};

/** Throws ConfigError naming the source and the key of what is wrong. */
export function loadSettings(flags: { data?: string } & Given, env: NodeJS.ProcessEnv = process.env): Settings {
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
    tls: tlsOf(chosen),
    kubernetes: kubernetesOf(chosen),
    pool: chosen.pool ?? null,
    agentId: chosen.agentId ?? "local",
    logLevel: chosen.logLevel ?? "info",
    requalify: chosen.requalify ?? "ask",
    canary: chosen.canary ?? "auto",
    contexts: join(xdgFolder(env, "XDG_CONFIG_HOME", ".config"), "vibeserve", "contexts"),
    anthropic: {
      apiKey: orNull(env["ANTHROPIC_API_KEY"]),
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
      apiKey: orNull(env["OPENAI_API_KEY"]),
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

/** Where a pod finds its cluster's authority and its own token; used for the cluster's own API server alone. */
const POD = "/var/run/secrets/kubernetes.io/serviceaccount";

function kubernetesOf(given: Given): Settings["kubernetes"] {
  const { kubernetesIssuer: issuer, kubernetesAccounts: accounts } = given;
  if (issuer === undefined && accounts === undefined) return null;
  if (issuer === undefined || accounts === undefined)
    throw new ConfigError("service accounts need both: VIBESERVE_KUBERNETES_ISSUER and VIBESERVE_KUBERNETES_ACCOUNTS");
  const ownCluster = /^https:\/\/kubernetes\.default\b/.test(issuer);
  const inPod = (name: string) => (ownCluster && existsSync(join(POD, name)) ? join(POD, name) : null);
  return {
    issuer,
    audience: given.kubernetesAudience ?? "vibeserve",
    accounts: accounts.split(","),
    caFile: given.kubernetesCa ?? inPod("ca.crt"),
    tokenFile: given.kubernetesToken ?? inPod("token"),
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

/** A credential by the variable that a CLI's recipe names. */
export const credentialOf = (variable: string, env: NodeJS.ProcessEnv = process.env): string | null => orNull(env[variable]);

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
    throw new ConfigError(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
