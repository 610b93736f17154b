import { StorageType } from "@nats-io/jetstream";
import { setTimeout as sleep } from "node:timers/promises";
import type { CampaignFact, Job, JobResult } from "@vibeserve/shared";
import { unclaimed } from "../../fleet/dispatcher.ts";
import { Fleet } from "../../fleet/fleet.ts";
import { CampaignLog } from "../../log/event-log.ts";
import { row, type Row } from "../bench-report.ts";
import { within } from "../lane.ts";
import type { Crowd } from "./crowd.ts";
import { jobOf } from "./dispatch-rate.ts";

/**
 * What a settled job leaves on disk: job.requested, the assignment, the result, job.settled. Two of them are events, and the broker syncs a stream's messages one by
 * one, while the floor fills three streams alike: about two thirds of it can be reached.
 */
const MESSAGES_A_JOB = 4;
/** About the size of each of them, bytes. */
const PAYLOAD = new Uint8Array(700);
const WARM_UP_MS = 2_000;

/**
 * Jobs settled a second with `campaigns` that each ask for their next job once the last is in their log: requested and settled through real event logs, the rest as
 * in dispatchRate. Not in it: planning, git, and what an agent does with a job.
 */
export async function settledRate(crowd: Crowd, campaigns: number, seconds: number): Promise<Row[]> {
  const { nc, js, jsm, registry, publicKeyOf, log, signal } = crowd;
  const floor = await persistedRate(crowd, campaigns, 5);
  const open = new Map<string, Searching>();
  const abort = AbortSignal.any([signal, AbortSignal.timeout(120_000)]);
  const failed = Promise.withResolvers<never>();
  let settled = 0;
  const fleet = await Fleet.open({
    ...{ nc, js, jsm, registry, publicKeyOf, log },
    campaigns: {
      standing: ({ campaign, id }) => (open.get(campaign)?.job?.id === id ? { kind: "open" } : { kind: "over", reason: "answered" }),
      expire: async ({ id }, why) => {
        failed.reject(new Error(`job ${id} was lost: ${why}`));
      },
      settle: async (result, stale) => {
        const accepted = (await open.get(result.campaign)?.settle(result, stale)) ?? false;
        if (accepted) settled++;
        return accepted;
      },
    },
  });
  let stopped = false;
  try {
    const running = Array.from({ length: campaigns }, async (_, i) => {
      const id = `rate-${i}`;
      const { log: events } = await CampaignLog.open({ nc, js, jsm }, id);
      const campaign = new Searching(id, events, abort);
      open.set(id, campaign);
      while (!stopped) await campaign.next((job) => fleet.dispatcher.offer(job, unclaimed(true)));
    });
    void Promise.all(running).catch(failed.reject);
    await Promise.race([sleep(WARM_UP_MS, undefined, { signal }), failed.promise]);
    const [from, at] = [settled, performance.now()];
    await Promise.race([sleep(seconds * 1000, undefined, { signal }), failed.promise]);
    const rate = ((settled - from) * 1000) / (performance.now() - at);
    stopped = true;
    await within(Promise.race([Promise.all(running), failed.promise]), "the last jobs are settled", signal);
    const possible = floor / MESSAGES_A_JOB;
    return [
      row("settled jobs, synced to disk", rate, "jobs/s", ">= 500"),
      row(`floor: persisted messages in ${STREAMS_A_JOB} streams`, floor, "messages/s", ""),
      row(`settled jobs / (floor / ${MESSAGES_A_JOB} messages a job)`, (100 * rate) / possible, "%", ">= 50"),
    ];
  } finally {
    await fleet[Symbol.asyncDispose]();
  }
}

/** One campaign as far as its log goes: asks for a job, is answered, asks for the next. */
class Searching {
  readonly #id: string;
  readonly #log: CampaignLog;
  readonly #signal: AbortSignal;
  #serial = 0;
  #answered = Promise.withResolvers<undefined>();
  job: Job | null = null;

  constructor(id: string, log: CampaignLog, signal: AbortSignal) {
    this.#id = id;
    this.#log = log;
    this.#signal = signal;
  }

  async next(offer: (job: Job) => void): Promise<void> {
    this.job = jobOf(`${this.#id}_${this.#serial++}`, this.#id);
    this.#answered = Promise.withResolvers<undefined>();
    await this.#append({ type: "job.requested", job: this.job });
    offer(this.job);
    await this.#answered.promise;
  }

  async settle(result: JobResult, stale: string | null): Promise<boolean> {
    if (stale !== null || result.jobId !== this.job?.id) return false;
    await this.#append({ type: "job.settled", result, accepted: true, why: "current attempt and lease" });
    this.#answered.resolve(undefined);
    return true;
  }

  async #append(fact: CampaignFact): Promise<void> {
    await this.#log.append(fact, this.#signal);
  }
}

/** Where a job's messages go: events, assignments, results. */
const STREAMS_A_JOB = 3;

/** Messages a second that the broker stores and syncs in as many streams for `writers`, each of which waits for its last one. */
async function persistedRate({ js, jsm }: Crowd, writers: number, seconds: number): Promise<number> {
  const streams = Array.from({ length: STREAMS_A_JOB }, (_, i) => `BENCH_PERSISTED_${i}`);
  for (const [i, name] of streams.entries())
    await jsm.streams.add({ name, subjects: [`bench.persisted.${i}.*`], storage: StorageType.File });
  const began = performance.now();
  let stored = 0;
  const write = async (i: number): Promise<void> => {
    while (performance.now() - began < seconds * 1000) {
      await js.publish(`bench.persisted.${stored % STREAMS_A_JOB}.${i}`, PAYLOAD, { timeout: 10_000 });
      stored++;
    }
  };
  await Promise.all(Array.from({ length: writers }, (_, i) => write(i)));
  const rate = (stored * 1000) / (performance.now() - began);
  for (const name of streams) await jsm.streams.delete(name);
  return rate;
}
