import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { daemonEnvironment } from "../config.ts";
import { agentArgs, agentData, enrollAgent, type AgentOptions } from "./agent-process.ts";
import { connectClient } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import { readGiven } from "./given-file.ts";
import type { Invocation } from "./invocation.ts";
import { prepare } from "./prepare.ts";
import { aborted, stopSignal } from "./stop-signal.ts";

export interface AgentCommandOptions {
  unsafeNoSandbox?: boolean;
  setup: boolean;
  join?: string;
  joinFile?: string;
}

/** gpu-agent's exit code when it was refused or revoked (EX_NOPERM): starting it again changes nothing. */
const REFUSED = 77;

/** This machine's agent, in the foreground, for the coordinator of the data folder or of --context, or for the one that it joins, or has joined, by a line. */
export async function agent(invocation: Invocation, options: AgentCommandOptions): Promise<void> {
  const signal = stopSignal();
  const { settings, output } = invocation;
  const chosen: AgentOptions = {
    assets: options.setup ? await prepare(settings, output, signal) : null,
    unsafeNoSandbox: options.unsafeNoSandbox === true,
  };
  const line = joinLine(options);
  const joins = line !== null || (invocation.context === undefined && existsSync(join(agentData(settings), "membership.json")));
  const servers = joins ? [] : await enroll(invocation, chosen, signal);
  // Many nodes join one coordinator, so the default id, which is the same everywhere, won't do.
  const agentId = joins && settings.agentId === "local" ? null : settings.agentId;
  output.say(`${joins ? "the agent joins" : `agent ${settings.agentId} enrolled at ${servers.join(", ")}`}; Ctrl-C drains it`);
  const child = spawn(process.execPath, agentArgs({ ...settings, agentId }, chosen, servers), {
    detached: true,
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    // Not an argument: those can be seen by all users of the machine.
    env: { ...daemonEnvironment(), ...(line === null ? {} : { VIBESERVE_AGENT_JOIN: line }) },
  });
  void aborted(signal).then(() => child.kill("SIGTERM"));
  const [code, by] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  if (code === 0) output.answer({ v: 1, kind: "agent-ended", agentId: settings.agentId }, "agent drained");
  else if (code === REFUSED) throw new CliError(EXIT.negative, `the agent was refused; its log above says why`);
  else throw new CliError(code === 2 ? EXIT.badInput : EXIT.negative, `gpu-agent ended with ${code ?? by ?? "?"}`);
}

async function enroll({ settings, context }: Invocation, chosen: AgentOptions, signal: AbortSignal): Promise<string[]> {
  await using client = await connectClient(settings, context);
  return await enrollAgent(settings, chosen, client, signal);
}

function joinLine({ join: line, joinFile }: AgentCommandOptions): string | null {
  return joinFile === undefined ? (line ?? null) : readGiven(joinFile).trim();
}
