import { existsSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { childEnvironment } from "../config.ts";
import type { Patient } from "../operate/doctor/check.ts";
import { dialAgent, dialCoordinator, type Dialled } from "../operate/doctor/dialled.ts";
import { examine, type Examined } from "../operate/doctor/doctor.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** Below StoreGuard's limit the coordinator waits; two builds, a model and a day of logs fit above the other. */
const DISK = { failBytes: 32 * 2 ** 20, warnBytes: 5 * 2 ** 30 };

/** Throws CliError 1 where a check fails; warnings and what can't be seen here do not. */
export async function doctor(
  { settings, output }: Invocation,
  { node = false, online = false }: { node?: boolean; online?: boolean },
): Promise<void> {
  const data = node ? nodeData(settings.data) : settings.data;
  const env = childEnvironment({});
  const agentId = agentIdOf(data, env);
  let dialled: Promise<Dialled> | null = null;
  const patient: Patient = {
    ...{ settings, node, data, agentId, online, root: "", env, execPath: process.execPath, now: Date.now, disk: DISK },
    uid: process.getuid?.() ?? 0,
    gids: [process.getgid?.() ?? 0, ...(process.getgroups?.() ?? [])],
    dial: () => (dialled ??= node ? dialAgent(data, agentId) : dialCoordinator(settings)),
  };
  output.say(`vibeserve doctor: ${node ? "an agent's node" : "a coordinator"}, ${data}`);
  const checks = await examine(patient, (examined) => output.say(line(examined)));
  const open = await patient.dial();
  if (open.kind === "open") await open.close();
  const count = (status: Examined["status"]) => checks.filter((c) => c.status === status).length;
  const summary = { ok: count("ok"), warn: count("warn"), fail: count("fail"), skipped: count("skipped") };
  const words = `${summary.ok} ok, ${summary.warn} warnings, ${summary.fail} failed, ${summary.skipped} not seen here`;
  output.answer({ v: 1, kind: "doctor", node, data, ...summary, checks }, words);
  const failed = checks.filter((c) => c.status === "fail").map((c) => c.name);
  if (failed.length > 0) throw new CliError(EXIT.negative, `failed: ${failed.join(", ")}`);
}

/** An agent that `vibeserve agent` runs has a folder in the data folder. */
const nodeData = (data: string): string =>
  existsSync(join(data, "agent.nk")) || !existsSync(join(data, "agent", "agent.nk")) ? data : join(data, "agent");

/** As gpu-agent finds it: environment, file, this machine's name. */
function agentIdOf(data: string, env: NodeJS.ProcessEnv): string {
  const file = join(data, "agent.json");
  const said = existsSync(file)
    ? z.looseObject({ agentId: z.string().optional() }).parse(JSON.parse(readFileSync(file, "utf8"))).agentId
    : undefined;
  const host = hostname()
    .split(".")[0]
    ?.replace(/[^A-Za-z0-9_-]/g, "-")
    .slice(0, 40);
  return env["VIBESERVE_AGENT_AGENT_ID"] || said || host || "agent";
}

const MARKS = { ok: "ok  ", warn: "warn", fail: "FAIL", skipped: "-   " } as const;
const line = ({ status, name, saw, fix }: Examined): string =>
  `${MARKS[status]}  ${name.padEnd(16)}  ${saw}${fix === null ? "" : `\n      ${" ".repeat(16)}  fix: ${fix}`}`;
