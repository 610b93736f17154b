import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { ExplainRequest, Explained, Holds, HoldsRequest, type Hold, type Where } from "@vibeserve/shared";
import type { ApiClient } from "../api/client.ts";
import { table } from "../report/summary-table.ts";
import { connectClient } from "./context.ts";
import { durationOf } from "./duration.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import type { Verbs } from "./verbs.ts";

interface YieldOptions {
  pool?: string;
  agent?: string;
  device?: string;
  for?: string;
  daily?: string;
  reason?: string;
  ahead?: boolean;
  end?: boolean;
  wait?: boolean;
}

/** The verbs about who works on what, and on what nobody may. */
export function fleetVerbs({ remote, act }: Verbs): void {
  remote(
    "explain [job]",
    "why a job waits, when it may start, and what each device of its pools does (default: why each idle device is idle)",
  ).action(act(explain));
  const shared = (command: Command): Command =>
    command
      .option("--reason <text>", "why, for whoever asks")
      .option("--ahead", "also under a name that nobody has yet, for what is still to come")
      .option("--end", "take it back")
      .option("--wait", "until nothing runs there any more");
  shared(
    remote("yield", "start nothing new on devices, which production needs; what runs goes on to its end (default: shows what is held)"),
  )
    .option("--pool <pool>", "on every device of a pool")
    .option("--agent <agent>", "on every device of an agent")
    .option("--device <device>", "on one device")
    .option("--for <time>", "for so long, such as 2h (default: until --end)")
    .option("--daily <from-to>", "quiet hours, every day, such as 08:00-18:00")
    .action(act(yieldDevices));
  shared(remote("drain <agent>", "give an agent nothing new, for maintenance; what runs goes on to its end")).action(
    act((invocation, agent: string, options: YieldOptions) => hold(invocation, "drain", { agentId: agent }, options)),
  );
}

async function explain({ settings, context, output }: Invocation, job: string | undefined): Promise<void> {
  await using client = await connectClient(settings, context);
  const answer = await client.ask("explain", ExplainRequest, { v: 1, kind: "explain.request", job: job ?? null }, Explained);
  const lines: string[] = [];
  if (answer.job) {
    const { id, state, position, etaMs, reason, endedAt } = answer.job;
    if (state === "unknown" && endedAt === undefined)
      throw new CliError(EXIT.badInput, `no such job: ${id} neither waits nor runs, and no campaign's log knows it`);
    const eta =
      etaMs === null
        ? "no device that is there now could take it"
        : `${state === "running" ? "ends" : "starts"} in about ${Math.ceil(etaMs / 1000)} s`;
    if (endedAt === undefined)
      lines.push(`job ${id} is ${state}${position === null ? "" : `, number ${position} of its pool`}: ${reason}`, eta);
    else lines.push(`job ${id} ${endedAt === null ? "did not end" : `ended at ${timeOf(endedAt)}`}: ${reason}`);
  }
  if (answer.devices.length > 0)
    lines.push(
      table(
        ["device", job === undefined ? "is idle because" : "does"],
        answer.devices.map((d) => [d.id, d.doing]),
      ),
    );
  else if (job === undefined) lines.push("no device is idle");
  if (answer.more > 0) lines.push(`and ${answer.more} more`);
  output.answer(answer, lines.join("\n"));
}

async function yieldDevices(invocation: Invocation, options: YieldOptions): Promise<void> {
  const where: Where = {
    ...(options.pool === undefined ? {} : { pool: options.pool }),
    ...(options.agent === undefined ? {} : { agentId: options.agent }),
    ...(options.device === undefined ? {} : { deviceId: options.device }),
  };
  const asked = [options.for, options.daily, options.end, options.reason].some((o) => o !== undefined) || Object.keys(where).length > 0;
  if (asked) return hold(invocation, options.daily === undefined ? "yield" : "quiet", where, options);
  await using client = await connectClient(invocation.settings, invocation.context);
  show(invocation, await ask(client, null, null));
}

async function hold(invocation: Invocation, purpose: Hold["purpose"], where: Where, options: YieldOptions): Promise<void> {
  const [from, to] = options.daily?.split("-") ?? [];
  const seconds = options.for === undefined ? null : durationOf("--for", options.for);
  const add = HoldsRequest.shape.add.safeParse({
    ...{ purpose, where, reason: options.reason ?? "asked for" },
    until: seconds === null ? null : Date.now() + seconds * 1000,
    daily: options.daily === undefined ? null : { from, to },
  });
  if (!add.success) throw new CliError(EXIT.badInput, `--daily ${options.daily ?? ""}: not FROM-TO such as 22:00-06:00`);
  await using client = await connectClient(invocation.settings, invocation.context);
  let holds = await ask(client, options.end === true ? null : add.data, options.end === true ? where : null, options.ahead);
  while (options.wait === true && holds.running.length > 0) {
    await sleep(1_000);
    holds = await ask(client, null, null);
  }
  show(invocation, holds);
}

const ask = async (client: ApiClient, add: Omit<Hold, "at"> | null, lift: Where | null, ahead?: boolean): Promise<Holds> =>
  client.ask("holds", HoldsRequest, { v: 1, kind: "holds.request", add, lift, ...(ahead === true ? { ahead } : {}) }, Holds);

function show({ output }: Invocation, holds: Holds): void {
  const where = ({ pool, agentId, deviceId }: Where) => deviceId ?? agentId ?? (pool === undefined ? "everything" : `pool ${pool}`);
  const until = (h: Hold) => (h.until === null ? "lifted" : timeOf(h.until));
  const rows = holds.holds.map((h) => [
    ...[where(h.where), h.purpose, h.active ? "now" : "not now", until(h)],
    ...[h.daily ? `${h.daily.from}-${h.daily.to}` : "", h.reason],
  ]);
  const text = rows.length === 0 ? "nothing is held" : table(["on", "for", "active", "until", "daily", "reason"], rows);
  const { devices = [], more = 0 } = holds;
  const rest = devices.length + more - NAMED;
  const names = `${devices.slice(0, NAMED).join(", ") || "nothing that is there"}${rest > 0 ? `, and ${rest} more` : ""}`;
  const held = holds.holds.some((h) => h.active) ? [`held now, ${devices.length + more}: ${names}`] : [];
  const runs = holds.running.map((r) => `still runs: ${r.jobId} on ${r.deviceId}`);
  output.answer(holds, [text, ...held, ...runs].join("\n"));
}

/** Devices that the text names; all are in the JSON. */
const NAMED = 20;

const timeOf = (ms: number): string => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
