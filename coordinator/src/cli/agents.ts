import {
  AgentDecided,
  AgentDecision,
  AgentsPage,
  AgentsRequest,
  AgentToken,
  AgentTokenRequest,
  DeviceGood,
  type AgentRow,
} from "@vibeserve/shared";
import type { z } from "zod";
import type { ApiClient } from "../api/client.ts";
import { commandLine } from "../command-line.ts";
import { table } from "../report/summary-table.ts";
import { connectClient } from "./context.ts";
import { durationOf } from "./duration.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** `vibeserve agents`: every agent that is in, waits, or was put out. */
export async function agents({ settings, context, output }: Invocation): Promise<void> {
  await using client = await connectClient(settings, context);
  const rows = await allAgents(client, AgentsPage);
  const when = (at: number | null) => (at === null ? "-" : new Date(at).toISOString().slice(0, 19).replace("T", " "));
  const text = table(
    ["agent", "state", "health", "pools", "devices", "version", "since", "heard", "note"],
    rows.map((a) => [
      ...[a.agentId, a.state, healthOf(a), a.pools.join(",") || "-"],
      a.devices.map((d) => `${d.name} (${d.isa}${d.simulated ? ", simulated" : ""})`).join(", ") || "-",
      ...[a.version ?? "-", when(a.since), when(a.heardAt), a.note ?? ""],
    ]),
  );
  output.answer(
    { v: 1, kind: "agents", agents: rows },
    rows.length === 0 ? `no agents; add one with: ${commandLine("agents", ["token"])}` : text,
  );
}

/** Page after page; `page`: what is asked of each. */
export async function allAgents<R extends { agentId: string }>(
  client: ApiClient,
  page: z.ZodType<{ agents: R[]; more: boolean }>,
): Promise<R[]> {
  const rows: R[] = [];
  for (let more = true; more;) {
    const after = rows.at(-1)?.agentId ?? null;
    const next = await client.ask("agents", AgentsRequest, { v: 1, kind: "agents.request", after }, page);
    rows.push(...next.agents);
    more = next.more;
  }
  return rows;
}

/** The worst of its devices, and why. */
function healthOf({ devices }: AgentRow): string {
  const bad = devices.flatMap((d) => (d.health ? [`${d.id} ${d.health.health}: ${d.health.reason}`] : []));
  return devices.length === 0 ? "-" : bad.join("; ") || "good";
}

/** `vibeserve agents good`: a device, or every device of an agent. */
export async function deviceGood(
  { settings, context, output }: Invocation,
  id: string,
  { reason = "by hand" }: { reason?: string },
): Promise<void> {
  const asked = DeviceGood.safeParse({ v: 1, kind: "device.good", id, reason });
  if (!asked.success) throw new CliError(EXIT.badInput, `${id}: not the id of a device or agent, or --reason is over 300 characters`);
  await using client = await connectClient(settings, context);
  output.answer(await client.ask("device-good", DeviceGood, asked.data, DeviceGood), `${id}: good again`);
}

export interface TokenOptions {
  pool?: string;
  labels?: string;
  ttl?: string;
  kubernetes?: boolean;
}

/** `vibeserve agents token`: stdout has the command for the node and nothing else. */
export async function agentToken({ settings, context, output }: Invocation, options: TokenOptions): Promise<void> {
  const ttlS = durationOf("--ttl", options.ttl ?? "1h");
  const asked = AgentTokenRequest.safeParse({
    v: 1,
    kind: "agent.token.request",
    pool: options.pool ?? null,
    labels: labelsOf(options.labels),
    ttlMs: ttlS * 1000,
    kubernetes: options.kubernetes === true,
  });
  if (!asked.success) {
    const [issue] = asked.error.issues;
    throw new CliError(EXIT.badInput, `--${String(issue?.path[0] ?? "").replace("ttlMs", "ttl")}: ${issue?.message ?? "not valid"}`);
  }
  await using client = await connectClient(settings, context);
  const { line, expiresAt } = await client.ask("agent-token", AgentTokenRequest, asked.data, AgentToken);
  const command = commandLine("agent", ["--join", `'${line}'`]);
  output.answer({ v: 1, kind: "agent.token", line, command, expiresAt }, command);
}

/** approve, refuse, revoke. */
export async function decideAgent(
  { settings, context, output }: Invocation,
  decision: "approve" | "refuse" | "revoke",
  agentId: string,
  reason: string | undefined,
): Promise<void> {
  const asked = AgentDecision.safeParse({ v: 1, kind: "agent.decision", agentId, decision, reason: reason ?? "by hand" });
  if (!asked.success) throw new CliError(EXIT.badInput, `${agentId}: not an agent's id, or --reason is over 500 characters`);
  await using client = await connectClient(settings, context);
  const answer = await client.ask("agent-decide", AgentDecision, asked.data, AgentDecided);
  output.answer(
    answer,
    `agent ${agentId}: ${{ approve: "approved", refuse: "refused", revoke: "revoked; its key never comes back" }[decision]}`,
  );
}

function labelsOf(text: string | undefined): Record<string, string> {
  const pairs = (text ?? "").split(",").filter((pair) => pair !== "");
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1) throw new CliError(EXIT.badInput, `--labels: "${pair}" is not key=value`);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}
