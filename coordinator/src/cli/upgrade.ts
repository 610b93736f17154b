import { existsSync } from "node:fs";
import { join } from "node:path";
import { AgentRow, AgentsRequest, CodecError, EmptyRequest } from "@vibeserve/shared";
import { z } from "zod";
import type { ApiClient } from "../api/client.ts";
import { ChainBrokenError } from "../log/chain.ts";
import { readRelease, thisRelease, type Release } from "../operate/release-file.ts";
import { checkUpgrade, type Installed } from "../operate/upgrade.ts";
import { backupData } from "./backup.ts";
import { campaignLogs } from "./campaign-logs.ts";
import { connectClient, localContext } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

export interface UpgradeOptions {
  check?: boolean;
  backupTo?: string;
  withKeys?: boolean;
}

/** A coordinator of any release, asked for no more than what is compared. */
const AnyStatus = z.looseObject({ version: z.string(), protocol: z.int().default(1), log: z.int().default(1) });
const AnyRow = z.looseObject({ ...AgentRow.pick({ agentId: true, protocol: true, version: true }).shape, state: z.string() });
const AnyList = z.looseObject({
  campaigns: z.array(z.looseObject({ campaign: z.string() })),
  unreadable: z.array(z.looseObject({ campaign: z.string() })),
});
const AnyPage = z.looseObject({ agents: z.array(AnyRow), more: z.boolean() });

/** Throws CliError: 1 where this release must not take over, 3 where there is nothing to take over. */
export async function upgrade(invocation: Invocation, options: UpgradeOptions): Promise<void> {
  const { settings, context, output, version } = invocation;
  if (!options.check)
    throw new CliError(EXIT.badInput, "upgrade installs nothing: give --check; docs/operations.md#upgrade has the order of steps");
  const runs = context !== undefined || existsSync(localContext(settings));
  const data = context === undefined ? readRelease(settings.data) : null;
  if (!runs && !existsSync(settings.data))
    throw new CliError(EXIT.unreachable, `there is neither a coordinator nor a data folder ${settings.data} to upgrade`);
  const installed: Installed = { data, coordinator: null, agents: [], unreadable: [], ...(runs ? await asked(invocation) : {}) };
  const checked = checkUpgrade(
    // Logs of a later version are not even opened: this release would say of each what is said once.
    checkUpgrade(installed, thisRelease(version)).ok ? { ...installed, ...(await read(invocation, runs)) } : installed,
    thisRelease(version),
  );
  if (checked.ok && options.backupTo !== undefined) {
    if (context !== undefined) throw new CliError(EXIT.badInput, "--backup-to needs the data folder: run it where the coordinator runs");
    await backupData(
      { ...invocation, output: { ...output, answer: (_object, text) => output.say(text) } },
      { to: options.backupTo, withKeys: options.withKeys === true },
    );
  }
  const words = ({ version, protocol, log }: Release) => `release ${version} (protocol ${protocol}, log ${log})`;
  const lines = [`from  ${words(checked.from)}`, `to    ${words(checked.to)}`, ...checked.refused.map((why) => `NO    ${why}`)];
  if (checked.ok) lines.push(...checked.advice.map((what) => `note  ${what}`));
  if (checked.unknown.length > 0) lines.push(`note  not heard of, so of an unknown release: ${checked.unknown.join(", ")}`);
  output.answer({ v: 1, kind: "upgrade", ...checked }, [...lines, checked.ok ? "ok" : ""].join("\n").trim());
  if (!checked.ok) throw new CliError(EXIT.negative, `release ${version} must not take over: ${checked.refused[0] ?? ""}`);
}

async function asked({ settings, context }: Invocation): Promise<Pick<Installed, "coordinator" | "agents">> {
  await using client = await connectClient(settings, context);
  const { version, protocol, log } = await client.ask("status", EmptyRequest, { v: 1, kind: "request" }, AnyStatus);
  return { coordinator: { version, protocol, log }, agents: await allAgents(client) };
}

async function allAgents(client: ApiClient): Promise<Installed["agents"]> {
  const rows: z.infer<typeof AnyRow>[] = [];
  for (let more = true; more;) {
    const page = await client.ask("agents", AgentsRequest, { v: 1, kind: "agents.request", after: rows.at(-1)?.agentId ?? null }, AnyPage);
    rows.push(...page.agents);
    more = page.more;
  }
  return rows;
}

/** Every log is decoded with this release's own schemas, and its chain is checked. */
async function read({ settings, context, output }: Invocation, runs: boolean): Promise<Pick<Installed, "unreadable">> {
  const unreadable: { campaign: string; reason: string }[] = [];
  if (runs) {
    await using client = await connectClient(settings, context);
    const { campaigns, unreadable: broken } = await client.ask("campaigns", EmptyRequest, { v: 1, kind: "request" }, AnyList);
    for (const { campaign } of campaigns)
      await client.events(campaign).catch((error: unknown) => {
        if (!(error instanceof CodecError || error instanceof ChainBrokenError)) throw error;
        unreadable.push({ campaign, reason: error.message });
      });
    // What the coordinator can't read either speaks against its disk, not against this release.
    for (const { campaign } of broken) output.say(`campaign ${campaign} can't be read by the coordinator that runs either`);
  } else if (existsSync(join(settings.data, "nats"))) {
    const say = (text: string) => {
      const [, campaign = "?", reason = text] = /^campaign (\S+) can't be read and is left out: (.*)$/s.exec(text) ?? [];
      unreadable.push({ campaign, reason });
    };
    await campaignLogs({ settings, context, output: { ...output, say } });
  }
  return { unreadable };
}
