import { quantile, subjects, type Job } from "@vibeserve/shared";
import { setTimeout as sleep } from "node:timers/promises";
import { unclaimed } from "../../fleet/dispatcher.ts";
import { Fleet, readProgress } from "../../fleet/fleet.ts";
import { row, type Row } from "../bench-report.ts";
import { within } from "../lane.ts";
import { POOL, type Crowd } from "./crowd.ts";

/** A tree that is nowhere: a simulated agent does not look for it. */
export const SPEC: Job["spec"] = {
  kind: "build",
  treeDigest: "0".repeat(40),
  tree: { digest: "0".repeat(64), bytes: 1 },
  provenance: "shipped",
};
const DEADLINE_MS = 60_000;

export const jobOf = (id: string, campaign: string): Job => ({
  ...{
    v: 1,
    kind: "job",
    id,
    campaign,
    experiment: "e1",
    attempt: 1,
    pool: POOL,
    issuedAt: Date.now(),
    deadlineMs: DEADLINE_MS,
    spec: SPEC,
  },
});

/**
 * `rate` jobs a second for `seconds`, each timed from the instant at which it was due to be offered until its agent's first report is here. Offered means: in its
 * campaign's log already. Scheduler, leases, results and the agents' connections are real; what agents do with a job takes no time.
 */
export async function dispatchRate(crowd: Crowd, rate: number, seconds: number, floorP50: number): Promise<Row[]> {
  const times: number[] = [];
  const due = new Map<string, number>();
  const settled = Promise.withResolvers<undefined>();
  const total = rate * seconds;
  let answers = 0;
  const over = new Set<string>();
  const fleet = await Fleet.open({
    ...{ nc: crowd.nc, js: crowd.js, jsm: crowd.jsm, registry: crowd.registry, publicKeyOf: crowd.publicKeyOf, log: crowd.log },
    campaigns: {
      standing: ({ id }) => (over.has(id) ? { kind: "over", reason: "answered" } : { kind: "open" }),
      expire: async ({ id }, why) => {
        settled.reject(new Error(`job ${id} was lost: ${why}`));
      },
      settle: (result, stale) => {
        over.add(result.jobId);
        if (++answers === total) settled.resolve(undefined);
        return Promise.resolve(stale === null);
      },
    },
  });
  const heard = crowd.nc.subscribe(subjects.progress("*", "*"), {
    callback: (_error, message) => {
      const at = performance.now();
      const id = readProgress(message.data, message.subject)?.jobId ?? "";
      const from = due.get(id);
      if (from === undefined) return;
      due.delete(id);
      times.push(at - from);
    },
  });
  try {
    const began = performance.now();
    for (let i = 0; i < total; i++) {
      const at = began + (i * 1000) / rate;
      const early = at - performance.now();
      if (early > 0) await sleep(early, undefined, { signal: crowd.signal });
      const id = `rate-${i}`;
      due.set(id, at);
      fleet.dispatcher.offer(jobOf(id, `c${i % 100}`), unclaimed(true));
    }
    await within(settled.promise, "every job is answered", crowd.signal);
  } finally {
    heard.unsubscribe();
    await fleet[Symbol.asyncDispose]();
  }
  const what = `dispatch at ${crowd.agents} agents, ${rate} jobs/s`;
  return [
    row(`${what}, p50`, quantile(times, 0.5), "ms", "<= 2"),
    row(`${what}, p99`, quantile(times, 0.99), "ms", "<= 10"),
    row(`${what}: p50 / raw JetStream's`, quantile(times, 0.5) / floorP50, "×", "<= 5"),
  ];
}
