import { join } from "node:path";
import { Kvm } from "@nats-io/kv";
import { BUCKETS, builderDevice, durables, STREAMS, type Job } from "@vibeserve/shared";
import { loadSeed, publicKeyOf } from "../broker/principals.ts";
import { ensurePool } from "../bus/streams.ts";
import { agentArgs, agentData } from "../cli/agent-process.ts";
import { agentEnvironment } from "../config.ts";
import { AgentRegistry } from "../fleet/agent-registry.ts";
import { publishJob } from "../fleet/dispatch.ts";
import { readProgress } from "../fleet/fleet.ts";
import { LeaseGranter } from "../fleet/lease-granter.ts";
import { ResultIntake } from "../fleet/result-intake.ts";
import { delay } from "../process/backoff.ts";
import { SupervisedChild } from "../process/child.ts";
import { within, type Lane, type LaneSite } from "./lane.ts";

const [POOL, AGENT, DEADLINE_MS] = ["bench", "bench", 60_000];
/** A tree that is nowhere: the agent starts the job, looks for it, and answers with a failure. */
const SPEC: Job["spec"] = {
  kind: "build",
  treeDigest: "0".repeat(40),
  tree: { digest: "0".repeat(64), bytes: 1 },
  provenance: "shipped",
};
/** How often the agent is asked whether it waits again; between jobs, so it disturbs none. */
const LOOK_MS = 2;
const AGENT_GRACE_MS = 45_000;

/**
 * The way of a job: from just before it is published until the first progress message of its agent is here. The agent sends that as soon as it has the
 * lease and before it does anything for the job, so the time is an upper bound of the job's start (by the message's way here).
 *
 * Real are the broker, streams and consumers, the granter, the registry, the intake of results, and a gpu-agent in a process of its own. This process
 * plays the coordinator; only the campaign is missing: a job is open until it is answered, and nothing is appended to a log.
 */
export async function openDispatch({ broker, nc, js, jsm, settings, log, signal, own }: LaneSite): Promise<Lane> {
  const publicKey = publicKeyOf(loadSeed(join(agentData(settings), "agent.nk")));
  if (!(await broker.enroll({ agentId: AGENT, publicKey, pools: [POOL] }))) throw new Error(`agent ${AGENT} could not be enrolled`);
  await ensurePool(jsm, POOL);
  const registry = own.use(await AgentRegistry.open({ js, publicKeyOf: (id) => (id === AGENT ? publicKey : null), log }));
  let current: { job: Job; started: PromiseWithResolvers<number>; answered: PromiseWithResolvers<undefined> } | null = null;
  const granter = own.use(
    await LeaseGranter.open({
      ...{ nc, js, jsm, log },
      agent: (agentId) => registry.get(agentId),
      standing: (jobId) => (jobId === current?.job.id ? { kind: "open", deadlineMs: DEADLINE_MS } : { kind: "over", reason: "answered" }),
      lost: (lease, why) => current?.answered.reject(new Error(`job ${lease.jobId} was lost: ${why}`)),
    }),
  );
  nc.subscribe("vs.progress.>", {
    callback: (_error, message) => {
      const at = performance.now();
      const report = readProgress(message.data, message.subject);
      if (report) granter.heard(report);
      if (report && report.jobId === current?.job.id) current.started.resolve(at);
    },
  });
  own.use(
    await ResultIntake.open({
      ...{ js, log },
      publicKeyOf: (id) => (id === AGENT ? publicKey : null),
      staleness: (result) => granter.staleness(result),
      settle: (_result, stale) => Promise.resolve(stale === null),
      recorded: (result, accepted) => {
        if (result.jobId !== current?.job.id) return;
        for (const { lease } of granter.leases()) if (lease.jobId === result.jobId) granter.release(lease);
        if (accepted) current.answered.resolve(undefined);
        else current.answered.reject(new Error(`the result of job ${result.jobId} was not accepted`));
      },
    }),
  );
  const agent = new SupervisedChild({
    ...{ name: "agent", command: process.execPath, env: agentEnvironment(), pidFile: null, log },
    args: agentArgs(settings, { assets: null, unsafeNoSandbox: false }, [broker.url]),
    logFile: join(settings.data, "logs", "agent.log"),
  });
  own.defer(() => agent.stop(AGENT_GRACE_MS));
  agent.start();
  const joined = new Promise<void>((resolve) => registry.onChange((change) => (change.kind === "joined" ? resolve() : undefined)));
  await within(Promise.race([joined, agent.failed]), "the agent registers", signal);

  const leases = await new Kvm(js).open(BUCKETS.leases);
  const isIdle = async (): Promise<boolean> => {
    const { num_pending, num_ack_pending, num_waiting } = await jsm.consumers.info(STREAMS.jobs, durables.build(POOL));
    const lease = await leases.get(builderDevice(AGENT));
    return num_pending === 0 && num_ack_pending === 0 && num_waiting > 0 && lease?.operation !== "PUT";
  };
  const untilIdle = async (): Promise<void> => {
    while (!signal.aborted && !(await isIdle())) await delay(LOOK_MS);
  };
  await within(untilIdle(), "the agent pulls", signal);
  let serial = 0;
  return async () => {
    const job: Job = {
      ...{ v: 1, kind: "job", id: `job-${serial++}`, campaign: "bench", experiment: "", attempt: 1 },
      ...{ pool: POOL, issuedAt: Date.now(), deadlineMs: DEADLINE_MS, spec: SPEC },
    };
    const [started, answered] = [Promise.withResolvers<number>(), Promise.withResolvers<undefined>()];
    current = { job, started, answered };
    const from = performance.now();
    const published = publishJob(js, job);
    const [at] = await within(Promise.all([started.promise, answered.promise, published]), `job ${job.id} is answered`, signal);
    await within(untilIdle(), "the agent pulls again", signal);
    return at - from;
  };
}
