import { table } from "../report/summary-table.ts";
import type { FleetPlan } from "./plan.ts";
import type { ProtocolRun } from "./protocol-run.ts";

const hours = (ms: number): string => `${(ms / 3_600_000).toFixed(2)} h`;
const percent = (share: number | null): string => (share === null ? "—" : `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`);
const usd = (n: number): string => `$${n.toFixed(2)}`;

export function planText(plan: FleetPlan): string {
  const { kinds, campaigns, bounds } = plan;
  const head = [
    `fleet ${plan.fleet}, seed ${plan.seed}: everything here is SIMULATED`,
    `makespan   ${hours(plan.makespanMs)}; no schedule ends before ${hours(plan.lowerBoundMs)} (${plan.boundBy})`,
    `work       ${campaigns.length} campaigns, ${campaigns.reduce((n, c) => n + c.experiments, 0)} experiments, ${plan.jobs} attempts at jobs; ${plan.agentLosses} agents lost and repaired`,
    `cost       ${usd(plan.rentUsd)} for the whole fleet until the end, ${usd(plan.turnsUsd)} for agents' turns`,
  ];
  const fleet = table(
    ["kind", "devices", "busy", "idle with a backlog", "longest queue", "at", "most ÷ least among equals", "to pay"],
    kinds.map((k) => [
      k.kind,
      String(k.devices),
      percent(k.utilisation),
      percent(k.idleWithBacklog),
      String(k.queuePeak),
      hours(k.queuePeakAtMs),
      k.fairness?.toFixed(3) ?? "—",
      usd((k.devices * k.usdPerHour * plan.makespanMs) / 3_600_000),
    ]),
  );
  const groups = table(
    ["campaigns", "of", "on", "first ends", "last ends", "longest alone", "median gain", "cost each", "pauses"],
    [...Map.groupBy(campaigns, (c) => c.group)].map(([group, mine]) => {
      const ends = mine.map((c) => c.endMs).sort((a, b) => a - b);
      const gains = mine.map((c) => c.gain).sort((a, b) => a - b);
      return [
        group,
        String(mine.length),
        mine[0]?.kind ?? "",
        hours(ends[0] ?? 0),
        hours(ends.at(-1) ?? 0),
        hours(Math.max(...mine.map((c) => c.chainMs))),
        `${(gains[gains.length >> 1] ?? 1).toFixed(2)}×`,
        usd(mine.reduce((sum, c) => sum + c.usd, 0) / mine.length),
        String(mine.reduce((n, c) => n + c.pauses, 0)),
      ];
    }),
  );
  const verdicts = bounds.map(
    (b) => `${b.ok ? "ok    " : "MISSED"}  ${b.what}: ${b.value === null ? "nothing to compare" : b.value.toFixed(3)}, limit ${b.limit}`,
  );
  return [head.join("\n"), fleet, groups, verdicts.join("\n")].join("\n\n");
}

/** The fleet that is needed, in one line a kind. */
export function neededText(plan: FleetPlan, deadlineMs: number): string {
  const rows = plan.kinds.map((k) => [k.kind, String(k.devices), percent(k.utilisation)]);
  return [
    `to end within ${hours(deadlineMs)} (simulated: ${hours(plan.makespanMs)}, ${usd(plan.rentUsd)}):`,
    table(["kind", "devices", "busy"], rows),
  ].join("\n");
}

/** What the real path added to a plan that was played over the protocol. */
export function protocolText(run: ProtocolRun): string {
  const { dispatchMs, settleMs, plan, breaches } = run;
  const ms = ({ p50, p99 }: { p50: number; p99: number }) => `p50 ${p50.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms`;
  const lines = [
    `over the protocol: a real broker and coordinator, ${run.agents} simulated agents; ${hours(plan.makespanMs)} took ${run.realS.toFixed(0)} s`,
    `dispatch   ${ms(dispatchMs)}, from a grant until its agent has it; at this speed 1 ms is ${(run.speed / 1_000).toFixed(2)} simulated seconds`,
    `settling   ${ms(settleMs)}, from an agent's answer until it counts`,
    `messages   ${run.messages} persisted, ${run.messagesPerJob.toFixed(2)} for each of ${run.settled} settled jobs`,
    `CPU        ${run.coordinatorCpu.toFixed(1)} % of a core for the coordinator`,
    `faults     ${run.expired} attempts expired, ${run.refused} results refused, ${run.overruled} overruled, devices under suspicion ${run.suspected} times`,
  ];
  const held = `ok      I3, I5 and I8 hold in ${plan.campaigns.length} logs`;
  return [lines.join("\n"), breaches.length === 0 ? held : breaches.map((b) => `BROKEN  ${b}`).join("\n")].join("\n\n");
}
