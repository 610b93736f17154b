// Runs inside a sandbox whose DIR is a small disk: a campaign is in the middle when the disk fills up, and goes on when there is room again. One JSON line.
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { factOf, startCoordinator } from "./real-coordinator.ts";
import { tinyTarget } from "./tiny-stack.ts";

const dir = process.argv[2] ?? "";
const filler = join(dir, "filler");

const real = await startCoordinator(dir, { minFreeBytes: 1024 * 1024 });
const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
let filled = false;
const full = real.reported("store.full");
const agent = await real.agent("a1", {
  work: async (job, lease) => {
    if (!filled && job.experiment === "e1") {
      filled = true;
      try {
        for (;;) writeFileSync(filler, Buffer.alloc(64 * 1024), { flag: "a" });
      } catch {
        // No space left: that was the point.
      }
    }
    return agent.outcome(job, lease);
  },
});
await full;
const waits = actor.waits.join();
const before = actor.events.length;
rmSync(filler);
const ended = await factOf(real, actor, "campaign.ended");
process.stdout.write(`${JSON.stringify({ waits, before, after: actor.events.length, outcome: ended.outcome })}\n`);
await agent[Symbol.asyncDispose]();
await real[Symbol.asyncDispose]();
process.exit(0);
