import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Settings } from "../../config.ts";
import { runTool, whyFailed } from "../../setup/run-tool.ts";
import { older } from "../../version.ts";
import type { Dialled } from "./dialled.ts";

export interface Finding {
  /** skipped: it can't be seen here; `saw` says why. */
  status: "ok" | "warn" | "fail" | "skipped";
  saw: string;
  /** A command, or what to change; null where nothing is to be done. */
  fix: string | null;
}

/** Where a doctor looks. What is not this process's own comes in here, so that a check can be shown any machine. */
export interface Patient {
  settings: Settings;
  /** An agent's node: `data` is its private folder. */
  node: boolean;
  data: string;
  /** Of the agent whose node it is. */
  agentId: string;
  /** May ask what is outside the installation, such as a provider of models. */
  online: boolean;
  /** Prefix of /proc, /sys, /dev and /etc; "" is this machine. */
  root: string;
  env: NodeJS.ProcessEnv;
  uid: number;
  gids: readonly number[];
  /** The Node that runs the product. */
  execPath: string;
  now: () => number;
  /** Free bytes below which the disk fails, and below which it is a warning. */
  disk: { failBytes: number; warnBytes: number };
  /** Answers, when it first is asked for, with a connection, or with why there is none. */
  dial: () => Promise<Dialled>;
}

export interface Check {
  name: string;
  /** both: on a coordinator's machine and on a node. */
  on: "coordinator" | "node" | "both";
  look: (at: Patient) => Finding | Promise<Finding>;
}

export const check = (name: string, on: Check["on"], look: Check["look"]): Check => ({ name, on, look });

export const ok = (saw: string): Finding => ({ status: "ok", saw, fix: null });
export const warn = (saw: string, fix: string): Finding => ({ status: "warn", saw, fix });
export const fail = (saw: string, fix: string): Finding => ({ status: "fail", saw, fix });
export const skipped = (why: string): Finding => ({ status: "skipped", saw: why, fix: null });

/**
 * A check of what only building and measuring needs. The coordinator of a NATS cluster may be alone on its machine, as in a pod: then there is nothing to say of it,
 * unless `vibeserve agent` has its folder here.
 */
export const ofAgents = (name: string, look: Check["look"]): Check =>
  check(name, "both", (at) =>
    at.node || at.settings.nats === null || existsSync(join(at.data, "agent"))
      ? look(at)
      : skipped("no agent works here: doctor --node looks at an agent's machine"),
  );

/** The trimmed text of a file under the patient's root; null where there is none to read. */
export function readText({ root }: Pick<Patient, "root">, path: string): string | null {
  try {
    return readFileSync(`${root}${path}`, "utf8").trim();
  } catch {
    return null;
  }
}

/** An executable on the patient's PATH, or in the folders of daemons that users' PATHs lack. */
export function which({ env }: Pick<Patient, "env">, name: string): string | null {
  const folders = (env["PATH"] ?? "").split(":").concat("/usr/sbin", "/usr/local/sbin");
  return (
    folders
      .filter((dir) => dir.startsWith("/"))
      .map((dir) => join(dir, name))
      .find(executable) ?? null
  );
}

export function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What a program printed, or why it did not end well. */
export async function ran(argv: readonly [string, ...string[]], deadlineMs = 10_000): Promise<{ text: string; why: string | null }> {
  const result = await runTool(argv, { deadlineMs });
  return { text: result.kind === "missing" ? "" : result.text.trim(), why: whyFailed(result) };
}

/** The first "1.2.3" in a text, compared with the least that will do. */
export const atLeast = (text: string, wanted: string): boolean => !older(/\d+(\.\d+)*/.exec(text)?.[0] ?? "0", wanted);
