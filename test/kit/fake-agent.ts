import { jetstream } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { fromSeed } from "@nats-io/nkeys";
import type { NatsConnection } from "@nats-io/transport-node";
import {
  AgentInfo,
  Beat,
  BUCKETS,
  builderDevice,
  canonicalJson,
  encode,
  JobResult,
  Progress,
  subjects,
  type Job,
  type Lease,
  type Outcome,
} from "@vibeserve/shared";
import { ArtifactStore } from "../../coordinator/src/artifact/artifact-store.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { Assignments, type Assigned } from "../../gpu-agent/src/bus/assignments.ts";
import { simulatedDevice, simulatedOutcome, type SpeedOf } from "./fake-outcomes.ts";

export interface FakeAgentOptions {
  url: string;
  agentId: string;
  seed: string;
  pool: string;
  /** What to do with a job that it is given; default: answer at once. */
  work?: (job: Job, lease: Lease) => Promise<Outcome | "silent">;
}

/**
 * An agent that speaks the protocol and computes nothing: it registers a device that says it is simulated, takes what it is assigned, reports, signs.
 * For tests of the coordinator; everything on the bus between the two is real.
 */
export class FakeAgent implements AsyncDisposable {
  readonly nc: NatsConnection;
  readonly #options: FakeAgentOptions;
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly device;
  readonly info: AgentInfo;
  /** Leases granted to it, in order. */
  readonly leases: Lease[] = [];

  private constructor(nc: NatsConnection, options: FakeAgentOptions) {
    this.nc = nc;
    this.#options = options;
    this.device = simulatedDevice(options.agentId);
    this.info = {
      v: 1,
      kind: "agent",
      agentId: options.agentId,
      publicKey: fromSeed(new TextEncoder().encode(options.seed)).getPublicKey(),
      version: "0.0.0",
      pools: [options.pool],
      devices: [this.device],
      tools: [],
      sandbox: "none",
      state: "ready",
      pid: process.pid,
      host: "simulated",
      startedAt: Date.now(),
    };
  }

  static async start(options: FakeAgentOptions): Promise<FakeAgent> {
    const nc = await connectBus({ servers: [options.url], seed: options.seed, principal: options.agentId });
    const agent = new FakeAgent(nc, options);
    const { agentId, startedAt } = agent.info;
    const assignments = new Assignments({
      ...{ nc, agentId, startedAt, devices: [agent.device.id, builderDevice(agentId)] },
      take: (assigned) => void agent.#take(assigned).catch(() => undefined),
      refused: (why) => {
        throw new Error(why);
      },
    });
    assignments.open();
    await agent.register();
    nc.subscribe(subjects.roll, { callback: () => agent.beat() });
    agent.#timers.add(setInterval(() => agent.beat(), 5_000));
    return agent;
  }

  beat(): void {
    if (this.nc.isClosed()) return;
    const { agentId, startedAt } = this.info;
    this.nc.publish(subjects.beat(agentId), encode(Beat, { v: 1, kind: "beat", agentId, startedAt }, "beat"));
  }

  async register(info: AgentInfo = this.info): Promise<void> {
    const key = `$KV.${BUCKETS.agents}.${this.info.agentId}.info`;
    await jetstream(this.nc).publish(key, encode(AgentInfo, info, key));
  }

  /** As an agent does that drains, once it works on nothing any more: its entry goes. */
  async withdraw(): Promise<void> {
    await (await new Kvm(this.nc).open(BUCKETS.agents)).delete(`${this.info.agentId}.info`);
  }

  signed(job: Job, lease: Lease, outcome: Outcome, change: Partial<JobResult> = {}): JobResult {
    const now = Date.now();
    const body = {
      v: 1 as const,
      kind: "result" as const,
      jobId: job.id,
      campaign: job.campaign,
      attempt: job.attempt,
      agentId: this.info.agentId,
      deviceId: lease.deviceId,
      leaseToken: lease.token,
      sandbox: this.info.sandbox,
      startedAt: now,
      endedAt: now,
      outcome,
      log: null,
      ...change,
    };
    return { ...body, sig: this.sign(body) };
  }

  sign(value: unknown): string {
    const key = fromSeed(new TextEncoder().encode(this.#options.seed));
    return Buffer.from(key.sign(new TextEncoder().encode(canonicalJson(value)))).toString("base64");
  }

  /** msgId null: no deduplication by the broker. */
  async publish(result: JobResult, msgId: string | null = `${result.jobId}.${result.attempt}.${result.leaseToken}`): Promise<void> {
    const subject = subjects.result(this.info.agentId, result.campaign);
    for (;;) {
      try {
        await jetstream(this.nc).publish(subject, encode(JobResult, result, subject), {
          timeout: 1_000,
          ...(msgId === null ? {} : { msgID: msgId }),
        });
        return;
      } catch (error) {
        if (this.nc.isClosed()) throw error;
      }
    }
  }

  report(job: Job, lease: Lease, phase = "working"): void {
    const subject = subjects.progress(this.info.agentId, job.id);
    const progress: Progress = {
      v: 1,
      kind: "progress",
      jobId: job.id,
      campaign: job.campaign,
      attempt: job.attempt,
      agentId: this.info.agentId,
      leaseToken: lease.token,
      phase,
      at: Date.now(),
    };
    this.nc.publish(subject, encode(Progress, progress, subject));
  }

  /** A candidate is as fast as the lines `// speed: N` in its sources say, multiplied. */
  async outcome(job: Job, lease: Lease): Promise<Outcome> {
    const speedOf: SpeedOf = async (tree) => {
      const text = Buffer.from(await (await ArtifactStore.open(this.nc)).get(tree.digest)).toString("latin1");
      return [...text.matchAll(/^\/\/ speed: ([0-9.]+)$/gm)].reduce((speed, [, factor]) => speed * Number(factor), 1);
    };
    return simulatedOutcome(job, lease, { device: this.device, speedOf, sign: (value) => this.sign(value) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.nc.close();
  }

  async #take({ job, lease }: Assigned): Promise<void> {
    this.leases.push(lease);
    const startedAt = Date.now();
    this.report(job, lease, "starting");
    const answer = this.#options.work ? await this.#options.work(job, lease) : await this.outcome(job, lease);
    if (answer !== "silent") await this.publish(this.signed(job, lease, answer, { startedAt }));
  }
}
