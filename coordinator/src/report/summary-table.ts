import type { Ratio } from "@vibeserve/shared";
import type { CampaignReport } from "./report-model.ts";

export const showRatio = (r: Ratio | null): string =>
  r ? `${r.point.toFixed(2)}× [${r.lo.toFixed(2)}, ${r.hi.toFixed(2)}] (${r.pairs} pairs)` : "—";

/** Plain text columns, two spaces apart; each column as wide as its widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, i) => Math.max(...all.map((r) => (r[i] ?? "").length)));
  const line = (r: readonly string[]): string =>
    r
      .map((cell, i) => (i === r.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)))
      .join("  ")
      .trimEnd();
  return [line(head), line(widths.map((w) => "─".repeat(w))), ...rows.map(line)].join("\n");
}

/** What `npm start` prints when a campaign ends. `serve` is the exact command that serves the champion. */
export function summary(r: CampaignReport, paths: { report: string; serve: string }): string {
  const clip = (s: string): string => (s.length > 92 ? `${s.slice(0, 91)}…` : s);
  const experiments = r.experiments.map((x) => [
    x.id,
    x.skills.join("+"),
    x.parent,
    x.outcome,
    x.ratio ? `${x.ratio.point.toFixed(2)}×` : "—",
    clip(x.reason),
  ]);
  const lines = [
    "",
    table(["id", "skill", "parent", "outcome", "ratio", "why"], experiments),
    "",
    `target      ${r.target} on ${r.device ?? "no device"} (${r.isa ?? "?"}, ${r.cores ?? "?"} cores, sandbox ${r.sandbox ?? "?"}${r.simulated ? ", SIMULATED" : ""}${r.unverified ? ", target unverified on device before" : ""})`,
    `outcome     ${r.outcome ?? "running"}: ${r.reason ?? ""}`,
    `champion    ${r.champion ? `${r.champion.experimentId}, branch ${r.champion.branch}, commit ${r.champion.commit.slice(0, 12)}` : "none: the seed stands"}`,
  ];
  const rate = r.champion?.rate;
  if (rate) lines.push(`rate        ${rate.value.toFixed(0)} ${r.metric.unit} (${r.metric.name}, ${rate.workload} workload)`);
  lines.push(`over seed   ${showRatio(r.ratioToSeed)}${r.ratioToSeed ? ", direct pairs on the target's slice" : ""}`);
  for (const b of r.baselines) {
    const rates = b.rates ? `: ${b.rates.champion.toFixed(0)} against ${b.rates.baseline.toFixed(0)} ${r.metric.unit}` : "";
    lines.push(
      `over ${b.engine} ${b.version ?? ""}   ${b.ratio ? `${showRatio(b.ratio)}${rates}, setting ${b.setting ?? ""}` : `not measured: ${b.missing ?? ""}`}`,
    );
  }
  const kl = r.accuracy.champion?.gates.find((g) => /kl/i.test(g.name));
  if (kl)
    lines.push(
      `accuracy    ${kl.name} ${kl.value.toExponential(2)} ${kl.unit} (must be ${kl.limit}) over ${r.accuracy.champion?.positions ?? 0} hidden positions`,
    );
  lines.push(`time        ${r.elapsedS.toFixed(0)} s`, `report      ${paths.report}`, `serve it    ${paths.serve}`, "");
  return lines.join("\n");
}
