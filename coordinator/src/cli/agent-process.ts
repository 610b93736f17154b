import { execFile } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { Enrolled, EnrollRequest, Id } from "@vibeserve/shared";
import { z } from "zod";
import type { ApiClient } from "../api/client.ts";
import { writePrivate } from "../broker/principals.ts";
import { agentEnvironment, type Settings } from "../config.ts";
import type { Assets } from "../setup/index.ts";
import { messageOf } from "../process/message-of.ts";
import { CliError, EXIT } from "./exit.ts";

/** gpu-agent is a package of its own: it is met on its command line and on the bus, never imported. */
export interface AgentOptions {
  assets: Pick<Assets, "bwrap" | "cxx" | "python"> | null;
  unsafeNoSandbox: boolean;
  /** Level of instructions that it is held to, "next" for the one below the machine's. Absent: none. */
  isaMask?: "next";
}

const Description = z.object({ agentId: Id, publicKey: z.string(), pools: z.array(Id).min(1) });

/** A first probe compiles nothing but asks compilers for their versions: ~2 s, more on busy machines. */
const DESCRIBE_LIMIT_MS = 60_000;

export const agentData = (settings: Pick<Settings, "data">): string => join(settings.data, "agent");

/** Beside the agent's key: the authority that it was enrolled with, and on a cluster its claim. */
const authorityFile = (settings: Pick<Settings, "data">): string => join(agentData(settings), "ca.pem");
const claimFile = (settings: Pick<Settings, "data">): string => join(agentData(settings), "claim.jwt");

/** agentId null: it names itself after its machine. Command line of an agent that serves this data folder's coordinator. */
export function agentArgs(
  settings: Omit<Settings, "agentId"> & { agentId: string | null },
  { assets, unsafeNoSandbox, isaMask }: AgentOptions,
  servers: readonly string[],
): string[] {
  const flag = (name: string, value: string | null | undefined) => (value === null || value === undefined ? [] : [name, value]);
  return [
    join(settings.root, "gpu-agent/src/main.ts"),
    ...["--data", agentData(settings), "--cache", settings.cache],
    ...flag("--agent-id", settings.agentId),
    ...flag("--servers", servers.length === 0 ? null : servers.join(",")),
    ...flag("--ca", servers.some((server) => server.startsWith("tls:")) ? authorityFile(settings) : null),
    ...flag("--claim", servers.length > 0 && existsSync(claimFile(settings)) ? claimFile(settings) : null),
    ...flag("--pool", settings.pool),
    ...flag("--isa-mask", isaMask),
    ...flag("--cxx", assets?.cxx.join(" ")),
    ...flag("--bwrap", assets?.bwrap),
    // What set-up found on a user's PATH is for no stack.
    ...(settings.python === null ? flag("--baseline-python", assets?.python) : flag("--python", settings.python)),
    ...(unsafeNoSandbox ? ["--unsafe-no-sandbox"] : []),
  ];
}

/** Gives this machine's agent its user on the broker; the agent makes its own key, and only the public half leaves its folder. Returns the broker's addresses. */
export async function enrollAgent(settings: Settings, options: AgentOptions, client: ApiClient, signal?: AbortSignal): Promise<string[]> {
  const { agentId, publicKey, pools } = await describe(settings, options, signal);
  const { servers, ca, claim } = await client.ask("enroll", EnrollRequest, { v: 1, kind: "enroll", agentId, publicKey, pools }, Enrolled);
  mkdirSync(agentData(settings), { recursive: true, mode: 0o700 });
  if (ca !== undefined) writePrivate(authorityFile(settings), ca);
  if (claim === undefined) rmSync(claimFile(settings), { force: true });
  else writePrivate(claimFile(settings), claim);
  return servers;
}

async function describe(settings: Settings, options: AgentOptions, signal?: AbortSignal): Promise<z.infer<typeof Description>> {
  const asked = askAgent([...agentArgs(settings, options, []), "--describe"], Description, DESCRIBE_LIMIT_MS, signal);
  return asked.catch((error: unknown) => {
    throw new CliError(EXIT.badInput, `gpu-agent can't run here: ${messageOf(error)}`);
  });
}

/** What gpu-agent, called with these words, answers on stdout. Rejects with what it said on stderr, else with why it could not be asked. */
export async function askAgent<T extends z.ZodType>(
  argv: readonly string[],
  answer: T,
  limitMs: number,
  signal?: AbortSignal,
): Promise<z.infer<T>> {
  try {
    const options = { timeout: limitMs, env: agentEnvironment(), ...(signal ? { signal } : {}) };
    const { stdout } = await promisify(execFile)(process.execPath, argv, options);
    return answer.parse(JSON.parse(stdout));
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw new Error(said || messageOf(error), { cause: error });
  }
}
