import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import type { CampaignReport, Report } from "../report/report-model.ts";
import { row, type BenchReport, type Row } from "./bench-report.ts";

/**
 * The main job as a new user meets it: a fresh clone of this checkout's HEAD, an empty home, `npm start`. The clock starts before the clone.
 * `again`: run it a second time in the same clone, without baselines, for the second-run row: a new campaign that has the first one's findings
 * and caches. Both runs together may pass ten minutes.
 */
export async function benchMainJob(
  root: string,
  options: { again: boolean; env: Record<string, string | undefined>; log: NodeJS.WritableStream },
): Promise<BenchReport> {
  const scratch = await mkdtemp(join(tmpdir(), "vibeserve-main-job-"));
  const clone = join(scratch, "clone");
  const env: Record<string, string | undefined> = { ...options.env, HOME: join(scratch, "home"), XDG_CACHE_HOME: undefined };
  try {
    const from = performance.now();
    await run("git", ["clone", "--quiet", "--no-hardlinks", root, clone], scratch, env, options.log);
    await run("npm", ["start"], clone, env, options.log);
    const totalS = (performance.now() - from) / 1000;
    const first = await readReport(clone);
    const report = mainJobReport(first, totalS);
    if (options.again) {
      const start = performance.now();
      await run("npm", ["start", "--", "--baseline", "none"], clone, env, options.log);
      const seconds = (performance.now() - start) / 1000;
      const second = await readReport(clone);
      if (second?.outcome === "proven" && second.id !== first?.id) report.rows.push(row("second run", seconds, "s", "<= 360"));
      else report.notMeasured.push({ what: "second run", why: "it ended without a champion" });
    } else {
      const why = "a second campaign would pass ten minutes in all: npm run bench -- main-job --again";
      report.notMeasured.push({ what: "second run", why, leftOut: true });
    }
    return report;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The goals of a first run that took totalS from before the clone to its end; c: what it reported, null if it ended without a report. */
export function mainJobReport(c: CampaignReport | null, totalS: number): BenchReport {
  if (!c) return { bench: "main-job", rows: [], notMeasured: [{ what: "every goal", why: "npm start ended without a report" }] };
  const measured: Row[] = [];
  const notMeasured: BenchReport["notMeasured"] = [];
  const ratio = c.ratioToSeed;
  if (ratio) {
    measured.push(row(`champion / seed, ${c.metric.name}, lower bound of 95 %`, ratio.lo, "×", ">= 20"));
    measured.push(row(`champion / seed, point, ${ratio.pairs} direct pairs`, ratio.point, "×", ""));
  } else notMeasured.push({ what: "champion / seed", why: c.reason ?? "no champion" });
  for (const b of c.baselines) {
    const name = `champion / ${b.engine} ${b.version ?? ""}`;
    if (b.ratio) {
      measured.push(row(`${name}, lower bound of 95 %`, b.ratio.lo, "×", ">= 1"));
      measured.push(row(`${name}, point, ${b.ratio.pairs} direct pairs, setting ${b.setting ?? ""}`, b.ratio.point, "×", ""));
    } else notMeasured.push({ what: name, why: b.missing ?? "" });
  }
  const setUpS = totalS - c.elapsedS;
  const crownedS = c.champions.at(-1)?.at;
  measured.push(row("set-up: clone, packages, wheels, start", setUpS, "s", "<= 180"));
  const toChampion = "fresh clone to champion, baselines left out";
  if (crownedS !== undefined) measured.push(row(toChampion, setUpS + crownedS, "s", "<= 600"));
  else notMeasured.push({ what: toChampion, why: "no champion" });
  measured.push(row("fresh clone to the end, baselines included", totalS, "s", ""));
  return { bench: "main-job", rows: measured, notMeasured };
}

/** Null: no campaign has ended there. */
async function readReport(clone: string): Promise<CampaignReport | null> {
  const path = join(clone, ".vibeserve/report.json");
  if (!existsSync(path)) return null;
  return (JSON.parse(await readFile(path, "utf8")) as Report).campaigns[0] ?? null;
}

/** Passes the child's output on to `log`; exit code 1 is a campaign without a champion, which the rows then show; anything else is an error. */
async function run(
  command: string,
  args: string[],
  cwd: string,
  env: Record<string, string | undefined>,
  log: NodeJS.WritableStream,
): Promise<void> {
  const child = spawn(command, args, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  const [code, signal] = (await once(child, "exit")) as [number | null, string | null];
  if (code !== 0 && code !== 1)
    throw new Error(`${command} ${args.join(" ")} ended with ${code === null ? `signal ${signal ?? "?"}` : `code ${code}`}`);
}
