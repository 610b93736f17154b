import { existsSync } from "node:fs";
import type { AgentInfo, Device, Target } from "@vibeserve/shared";
import { toldBy, findingsOf, toolsDigestOf, type Told } from "../findings/finding.ts";
import { scopeOf, similarity, type Scope } from "../findings/scope.ts";
import { weigh, type Today, type WeighedFinding } from "../findings/weigh.ts";
import { missingLabels } from "../fleet/agent-registry.ts";
import { table } from "../report/summary-table.ts";
import { loadCatalog } from "../stack/catalog.ts";
import { campaignLogs, type CampaignLogs } from "./campaign-logs.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { readTargetFile } from "./target-file.ts";

/** What ended campaigns showed, the weightiest first; with --target as it counts for that target. */
export async function findings(invocation: Invocation, options: { target?: string }): Promise<void> {
  const logs = await campaignLogs(invocation);
  const told = toldIn(logs);
  const weighed = weigh(told.flatMap(findingsOf), await today(invocation.settings.root, told, logs.agents));
  const here = options.target === undefined ? null : scopeOfTarget(options.target, told, logs.agents ?? []);
  const shown = weighed
    .map((f) => ({ ...f, similarity: here ? similarity(f.scope, here) : 1 }))
    .sort((a, b) => b.weight * b.similarity - a.weight * a.similarity || b.at - a.at);
  const counted = `${shown.length} findings of ${new Set(shown.map((f) => f.evidence.campaign)).size} ended campaigns`;
  const text = shown.length === 0 ? "no findings: no campaign has ended with a measurement" : `${findingTable(shown)}\n\n${counted}`;
  invocation.output.answer({ v: 1, kind: "findings", target: options.target ?? null, scope: here, findings: shown }, text);
}

export const toldIn = ({ logs }: CampaignLogs): Told[] => logs.flatMap((events) => toldBy(events) ?? []);

/** What is installed and registered now. A seed that is not installed any more has not changed as far as anyone knows. */
export async function today(root: string, told: readonly Told[], agents: readonly AgentInfo[] | null): Promise<Today> {
  const stacks = new Map<string, string>();
  for (const seed of new Set(told.map((t) => t.state.target.seed))) {
    const catalog = await loadCatalog(root, seed).catch(() => null);
    if (catalog) stacks.set(seed, catalog.digest);
  }
  return { now: Date.now(), stacks, tools: new Map((agents ?? []).map((a) => [a.agentId, toolsDigestOf(a.tools)])) };
}

/** By the name of a target that campaigns were run for, or by its file, on a device that is registered or was bound. Throws CliError. */
function scopeOfTarget(named: string, told: readonly Told[], agents: readonly AgentInfo[]): Scope {
  const newest = told.map((t) => t.state).sort((a, b) => b.createdAt - a.createdAt);
  const known = newest.find((c) => c.target.name === named && c.device);
  const target: Target | null = known?.target ?? (existsSync(named) ? readTargetFile(named) : null);
  if (!target) throw new CliError(EXIT.badInput, `--target ${named}: no campaign was run for it, and there is no such file`);
  const fits = (device: Device): boolean => missingLabels(device, target.device).length === 0;
  const devices = [...agents.flatMap((a) => a.devices), ...newest.flatMap((c) => c.device ?? [])];
  const scope = scopeOf({ target, device: known?.device ?? devices.find(fits) ?? null });
  if (scope) return scope;
  throw new CliError(EXIT.badInput, `--target ${named}: no device with its labels is registered or was bound by a campaign`);
}

function findingTable(shown: readonly (WeighedFinding & { similarity: number })[]): string {
  const clip = (s: string): string => (s.length > 60 ? `${s.slice(0, 59)}…` : s);
  const rows = shown.map((f) => [
    f.id,
    clip(f.kind === "code" ? f.claim : f.idea),
    f.outcome,
    f.effect ? `${f.effect.point.toFixed(2)}× [${f.effect.lo.toFixed(2)}, ${f.effect.hi.toFixed(2)}], ${f.effect.pairs} pairs` : "—",
    `${f.scope.isa}${f.simulated ? ", SIMULATED" : ""}`,
    f.scope.model,
    (f.weight * f.similarity).toFixed(2),
    [...f.because, ...(f.contradictedBy.length > 0 ? [f.contradictedBy.join(" ")] : []), ...(f.reason === "" ? [] : [clip(f.reason)])].join(
      "; ",
    ),
  ]);
  return table(["finding", "idea", "outcome", "effect", "isa", "model", "weight", "notes"], rows);
}
