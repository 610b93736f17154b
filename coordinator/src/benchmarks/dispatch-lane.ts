import { join } from "node:path";
import { subjects, type Job } from "@vibeserve/shared";
import { ArtifactIntake } from "../artifact/artifact-intake.ts";
import { loadSeed, publicKeyOf } from "../broker/principals.ts";
import { agentArgs, agentData } from "../cli/agent-process.ts";
import { daemonEnvironment } from "../config.ts";
import { AgentRegistry } from "../fleet/agent-registry.ts";
import { unclaimed } from "../fleet/dispatcher.ts";
import { Fleet, readProgress } from "../fleet/fleet.ts";
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
/** How often it is looked whether the lease has ended; between jobs, so it disturbs none. */
const LOOK_MS = 2;
const AGENT_GRACE_MS = 45_000;

/**
 * The way of a job: from just before it is offered until the first progress message of its agent is here. The agent sends that as soon as it has the
 * assignment and before it does anything for the job, so the time is an upper bound of the job's start (by the message's way here).
 *
 * Real are the broker, the registry, scheduler, leases, the intake of results, and a gpu-agent in a process of its own. This process plays the
 * coordinator; only the campaign is missing: a job is open until it is answered, and nothing is appended to a log.
 */
export async function openDispatch({ broker, nc, js, jsm, settings, log, signal, own }: LaneSite): Promise<Lane> {
  const publicKey = publicKeyOf(loadSeed(join(agentData(settings), "agent.nk")));
  if (!(await broker.enroll({ agentId: AGENT, publicKey, pools: [POOL] }))) throw new Error(`agent ${AGENT} could not be enrolled`);
  const registry = own.use(
    await AgentRegistry.open({ nc, js, enrolled: (id) => (id === AGENT ? { publicKey, pools: [POOL] } : null), log }),
  );
  own.use(new ArtifactIntake({ nc, js, jsm }, log));
  let current: { job: Job; started: PromiseWithResolvers<number>; answered: PromiseWithResolvers<undefined> } | null = null;
  const fleet = own.use(
    await Fleet.open({
      ...{ nc, js, jsm, registry, log },
      publicKeyOf: (id) => (id === AGENT ? publicKey : null),
      campaigns: {
        standing: ({ id }) => (id === current?.job.id ? { kind: "open" } : { kind: "over", reason: "answered" }),
        expire: ({ id }, why) => Promise.resolve(current?.answered.reject(new Error(`job ${id} was lost: ${why}`))),
        settle: (result, stale) => {
          if (result.jobId === current?.job.id)
            if (stale === null) current.answered.resolve(undefined);
            else current.answered.reject(new Error(`the result of job ${result.jobId} was not accepted: ${stale}`));
          return Promise.resolve(stale === null);
        },
      },
    }),
  );
  nc.subscribe(subjects.progress(AGENT, "*"), {
    callback: (_error, message) => {
      const at = performance.now();
      if (readProgress(message.data, message.subject)?.jobId === current?.job.id) current?.started.resolve(at);
    },
  });
  const agent = new SupervisedChild({
    ...{ name: "agent", command: process.execPath, env: daemonEnvironment(), pidFile: null, log },
    args: agentArgs(settings, { assets: null, unsafeNoSandbox: false }, [broker.url]),
    logFile: join(settings.data, "logs", "agent.log"),
  });
  own.defer(() => agent.stop(AGENT_GRACE_MS));
  agent.start();
  const joined = new Promise<void>((resolve) => registry.onChange((change) => (change.kind === "joined" ? resolve() : undefined)));
  await within(Promise.race([joined, agent.failed]), "the agent registers", signal);

  const untilIdle = async (): Promise<void> => {
    while (!signal.aborted && fleet.leases.list().length > 0) await delay(LOOK_MS);
  };
  let serial = 0;
  return async () => {
    const job: Job = {
      ...{ v: 1, kind: "job", id: `job-${serial++}`, campaign: "bench", experiment: "", attempt: 1 },
      ...{ pool: POOL, issuedAt: Date.now(), deadlineMs: DEADLINE_MS, spec: SPEC },
    };
    const [started, answered] = [Promise.withResolvers<number>(), Promise.withResolvers<undefined>()];
    current = { job, started, answered };
    const from = performance.now();
    fleet.dispatcher.offer(job, unclaimed(false));
    const [at] = await within(Promise.all([started.promise, answered.promise]), `job ${job.id} is answered`, signal);
    await within(untilIdle(), "its lease ends", signal);
    return at - from;
  };
}
