import type { WriteStream } from "node:tty";
import type { CampaignEvent, Progress } from "@vibeserve/shared";
import { champion, elapsedMs, fold, leader, type Campaign } from "../campaign/campaign.machine.ts";
import { curve } from "../report/curve.ts";
import { table } from "../report/summary-table.ts";
import { describe } from "./describe.ts";

export interface View {
  event(e: CampaignEvent): void;
  progress(p: Progress): void;
  /** Stops drawing and leaves the last picture on the screen. */
  close(): void;
}

/** One line per fact worth reading: for pipes, logs and CI. */
export function openLines(out: NodeJS.WritableStream): View {
  let c: Campaign | null = null;
  return {
    event(e) {
      c = fold(c, e);
      const line = describe(e, c);
      if (line !== null) out.write(`${clock(elapsedMs(c, e.at))} ${line}\n`);
    },
    progress() {
      // Plain lines are a record of facts; progress is lossy and belongs to the live picture only.
    },
    close() {
      out.write("");
    },
  };
}

/** Redraws in place, at most 5 times a second; progress decides between two facts. now: wall clock in ms. */
export function openLive(out: WriteStream, now: () => number): View {
  let c: Campaign | null = null;
  let phase = "";
  let drawn = 0;
  const recent: string[] = [];
  const draw = (): void => {
    if (!c) return;
    const text = picture(c, phase, recent, now(), out.columns || 100);
    const up = drawn > 0 ? `\x1b[${drawn}A\x1b[0J` : "";
    out.write(up + text.join("\n") + "\n");
    drawn = text.length;
  };
  const timer = setInterval(draw, 500);
  timer.unref();
  return {
    event(e) {
      c = fold(c, e);
      const line = describe(e, c);
      if (line !== null) recent.push(`${clock(elapsedMs(c, e.at))} ${line}`);
      if (recent.length > 8) recent.shift();
      if (e.fact.type === "job.settled") phase = "";
    },
    progress(p) {
      phase = `${p.jobId.split("_").slice(1).join(" ")}: ${p.phase}`;
    },
    close() {
      clearInterval(timer);
      draw();
    },
  };
}

function picture(c: Campaign, phase: string, recent: readonly string[], now: number, columns: number): string[] {
  const spent = elapsedMs(c, now) / 1000;
  const left = Math.max(0, c.target.budget.wallS - spent);
  const points = curve(c);
  const best = points.reduce((m, p) => Math.max(m, p.estimate), 1);
  const rows = c.experiments
    .slice(-6)
    .map((x) => [
      x.id,
      x.hypothesis.skills.join("+"),
      x.settled?.outcome ?? (x.git ? "running" : "drafting"),
      x.settled?.ratio ? `${x.settled.ratio.point.toFixed(2)}×` : `expects ${x.hypothesis.expected.ratio.toFixed(2)}×`,
    ]);
  const lines = [
    `VibeServe  ${c.target.name}  on ${c.device?.name ?? "(waiting for a device)"} ${c.device?.isa ?? ""}  ${c.pausedAt ? "PAUSED" : c.ended ? c.ended.outcome : "running"}`,
    `time ${clock(spent * 1000)}, budget left ${clock(left * 1000)}, experiments ${c.experiments.length}/${c.target.budget.experiments}`,
    `leader ${leader(c)} (about ${best.toFixed(1)}× the seed)  champion ${champion(c)}  ${spark(points.map((p) => Math.log(p.estimate)))}`,
    `now: ${phase || "—"}`,
    "",
    ...table(["id", "skill", "outcome", "ratio"], rows).split("\n"),
    "",
    ...recent,
  ];
  return lines.map((l) => (l.length > columns - 1 ? `${l.slice(0, columns - 2)}…` : l));
}

const BARS = "▁▂▃▄▅▆▇█";

export function spark(values: readonly number[]): string {
  const max = Math.max(...values, 1e-9);
  return values.map((v) => BARS[Math.min(BARS.length - 1, Math.max(0, Math.round((v / max) * (BARS.length - 1))))] ?? "").join("");
}

export function clock(ms: number): string {
  const s = Math.floor(ms / 1000);
  return `${String(Math.floor(s / 60)).padStart(2, "0")}:${String(s % 60).padStart(2, "0")}`;
}
