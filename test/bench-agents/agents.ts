import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BenchReport } from "../../coordinator/src/benchmarks/bench-report.ts";
import { measureCrowd } from "./crowd.ts";
import { measureFirstChampion } from "./first-champion.ts";
import { measureKills } from "./kills.ts";
import { measurePrompts } from "./prompts.ts";
import type { BenchSite } from "./stand.ts";
import { measureTurns } from "./turns.ts";

/**
 * What models cost the coordinator itself: time between a conversation's turns, tokens of its prompts, memory, and what a kill makes it pay twice. The models are
 * a script behind real HTTP and the agent is simulated, so that nothing else is in the numbers; coordinator and broker are the product's own processes. Stopped or
 * failed, it leaves no process and no file behind. Called by `vibeserve bench agents`.
 */
export async function benchAgents(options: Omit<BenchSite, "dir"> & { log: NodeJS.WritableStream }): Promise<BenchReport> {
  const { log, ...site } = options;
  const scratch = await mkdtemp(join(tmpdir(), "vibeserve-agents-"));
  const folder = async (name: string): Promise<BenchSite> => {
    const dir = join(scratch, name);
    await mkdir(dir);
    return { ...site, dir };
  };
  try {
    const champion = measureFirstChampion();
    // First, while this process is small: it keeps no prompt of theirs, and collecting what the others keep would delay its answers.
    const crowd = await measureCrowd(await folder("crowd"), log);
    const rows = [
      ...(await measureTurns(await folder("turns"), log)),
      ...(await measurePrompts()),
      ...(await measureKills(await folder("kills"), log)),
      ...crowd,
      ...champion.rows,
    ];
    const missing = rows.filter(({ value }) => Number.isNaN(value)).map(({ what }) => ({ what, why: "no /proc to read it from" }));
    return { bench: "agents", rows: rows.filter(({ value }) => !Number.isNaN(value)), notMeasured: [...missing, ...champion.notMeasured] };
  } finally {
    await rm(scratch, { recursive: true, force: true, maxRetries: 3 });
  }
}
