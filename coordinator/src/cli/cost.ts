import { costOf, type CostReport, type Row, type Spending } from "../campaign/cost.ts";
import { table } from "../report/summary-table.ts";
import { connectClient } from "./context.ts";
import type { Invocation } from "./invocation.ts";

/** What a campaign has cost, read from its log: in progress or ended, here or elsewhere. */
export async function cost({ settings, context, output }: Invocation, id: string | undefined): Promise<void> {
  await using client = await connectClient(settings, context);
  const report = costOf(await client.events(id ?? null), Date.now());
  output.answer({ ...report }, costText(report));
}

const usd = (n: number): string => `$${n.toFixed(4)}`;
const seconds = (n: number): string => `${n.toFixed(1)} s`;
const share = (n: number | null): string => (n === null ? "—" : `${(100 * n).toFixed(1)} %`);

function costText(r: CostReport): string {
  const { accepted: a, device, total } = r;
  const gained =
    a.gain === null
      ? "no candidate was accepted"
      : `${a.gain.toFixed(2)}× over the seed (${a.leaders.join(" > ")}), ${a.direct ? "by direct pairs" : "as screened, one ratio times the next"}`;
  const lines = [
    `campaign    ${r.campaign}, target ${r.target}: ${r.outcome ?? "not ended"}`,
    `time        ${seconds(r.wallS)} of wall time, ${seconds(r.pausedS)} paused beside it`,
    `devices     ${seconds(device.totalS)} of work on jobs, ${seconds(device.unacceptedS)} of it for results that were not accepted`,
    `money       ${usd(total.settledUsd)} settled, ${usd(total.reservedUsd)} was reserved; ${r.open.turns} turns under way hold ${usd(r.open.reservedUsd)}`,
    `lost turns  ${r.lost.turns} lost: ${usd(r.lost.usd)}, ${r.cutOff.turns} cut off: ${usd(r.cutOff.usd)}; both charged as reserved`,
    `per gain    ${a.usdPerPercent === null ? "—" : `${usd(a.usdPerPercent)} per accepted %`}: ${gained}`,
  ];
  const tables = [spendingTable("role", r.byRole, total), spendingTable("model", r.byModel), spendingTable("experiment", r.byExperiment)];
  return [lines.join("\n"), ...(total.turns > 0 ? tables : []), ...portfolioTable(r.portfolio), deviceTable(device.jobs)].join("\n\n");
}

function spendingTable(what: string, rows: readonly Row[], total?: Spending): string {
  const cells = (name: string, s: Spending): string[] => [
    name,
    ...[s.turns, s.input, s.output, s.cacheRead, s.cacheWrite].map(String),
    ...[share(s.cachedShare), usd(s.reservedUsd), usd(s.settledUsd)],
  ];
  return table(
    [what, "turns", "input", "output", "cache read", "cache written", "cached", "reserved", "settled"],
    [...rows.map((row) => cells(row.name, row)), ...(total ? [cells("total", total)] : [])],
  );
}

/** Who planned and carried out what, and what its leaders gained for its money. */
function portfolioTable(members: CostReport["portfolio"]): string[] {
  const all = members.reduce((sum, m) => sum + m.experiments, 0);
  const rows = members.map((m) => [
    m.agent,
    String(m.experiments),
    share(all > 0 ? m.experiments / all : null),
    `${Math.exp(m.logGain).toFixed(2)}×`,
    usd(m.usd),
    m.stopped ?? "",
  ]);
  return members.length > 0 ? [table(["member", "experiments", "share", "gained", "cost", "stopped"], rows)] : [];
}

/** A column for each kind of job that there was. */
function deviceTable(jobs: CostReport["device"]["jobs"]): string {
  const kinds = [...new Set(jobs.map((j) => j.job))];
  const rows = [...Map.groupBy(jobs, (j) => j.experiment)].map(([experiment, mine]) => [
    experiment,
    ...kinds.map((kind) => mine.find((j) => j.job === kind)?.seconds.toFixed(1) ?? "—"),
    mine.reduce((sum, j) => sum + j.seconds, 0).toFixed(1),
  ]);
  return rows.length > 0 ? table(["device-seconds", ...kinds, "all"], rows) : "no job has been answered yet";
}
