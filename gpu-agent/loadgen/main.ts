/** The load generator's process; plan.ts says what it takes and gives. Exit 0 when RESULT was written, 1 otherwise, with the reason on stderr. */
import { once } from "node:events";
import { readFile, rename, writeFile } from "node:fs/promises";
import { Drive, type Driven } from "./drive.ts";
import { parseTranscript } from "./parse.ts";
import type { LoadPlan, LoadResult } from "./plan.ts";
import { speedProbe } from "./speed-probe.ts";
import { Watch } from "./self-watch.ts";

async function main(planPath: string, resultPath: string): Promise<void> {
  const plan = JSON.parse(await readFile(planPath, "utf8")) as LoadPlan;
  let go = 0;
  const drive = new Drive(plan, () => performance.now() - go);
  const watch = new Watch();
  let startedAt = Date.now();
  let driven: Driven;
  let probeMs = 0;
  try {
    await drive.open();
    probeMs = speedProbe();
    say("ready");
    await once(process.stdin, "data");
    startedAt = Date.now();
    watch.start();
    go = performance.now();
    driven = await drive.start();
  } catch (cause) {
    const reason = `no connection: ${cause instanceof Error ? cause.message : String(cause)}`;
    driven = { end: "broken", reason, transcripts: [] };
  }
  const watched = watch.stop(driven.transcripts);
  say("ended");
  const self = { ...watched, probeMs: Math.max(probeMs, speedProbe()) };
  const records = driven.transcripts.map((t) => parseTranscript(t, plan.dialect));
  const result: LoadResult = { v: 1, end: driven.end, reason: driven.reason, startedAt, records, self };
  // Renamed into place, so that a reader never sees half of it.
  await writeFile(`${resultPath}.part`, JSON.stringify(result), { mode: 0o600 });
  await rename(`${resultPath}.part`, resultPath);
  say("written");
}

function say(word: string): void {
  process.stdout.write(`${word}\n`);
}

// The agent's death closes stdin: nobody would read the result.
process.stdin.on("end", () => process.exit(1));
const [planPath, resultPath] = process.argv.slice(2);
if (planPath === undefined || resultPath === undefined) {
  process.stderr.write("usage: node main.ts PLAN RESULT\n");
  process.exit(2);
}
await main(planPath, resultPath);
process.exit(0);
