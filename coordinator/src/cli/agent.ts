import { spawn } from "node:child_process";
import { once } from "node:events";
import { agentEnvironment } from "../config.ts";
import { agentArgs, enrollAgent, type AgentOptions } from "./agent-process.ts";
import { connectClient } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { prepare } from "./prepare.ts";
import { aborted } from "./stop-signal.ts";

/** This machine's agent, in the foreground, for the coordinator of the data folder or of --context. */
export async function agent(
  invocation: Invocation,
  options: { unsafeNoSandbox?: boolean; setup: boolean },
  signal: AbortSignal,
): Promise<void> {
  const { settings, output } = invocation;
  const chosen: AgentOptions = {
    assets: options.setup ? await prepare(settings, output, signal) : null,
    unsafeNoSandbox: options.unsafeNoSandbox === true,
  };
  const servers = await enroll(invocation, chosen, signal);
  output.say(`agent ${settings.agentId} enrolled at ${servers.join(", ")}; Ctrl-C drains it`);
  const child = spawn(process.execPath, agentArgs(settings, chosen, servers), {
    detached: true,
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    env: agentEnvironment(),
  });
  void aborted(signal).then(() => child.kill("SIGTERM"));
  const [code, by] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  if (code === 0) output.answer({ v: 1, kind: "agent-ended", agentId: settings.agentId }, "agent drained");
  else throw new CliError(code === 2 ? EXIT.badInput : EXIT.negative, `gpu-agent ended with ${code ?? by ?? "?"}`);
}

async function enroll({ settings, context }: Invocation, chosen: AgentOptions, signal: AbortSignal): Promise<string[]> {
  await using client = await connectClient(settings, context);
  return await enrollAgent(settings, chosen, client, signal);
}
