import { jetstream, type ConsumerMessages, type JsMsg } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { fromSeed } from "@nats-io/nkeys";
import type { NatsConnection } from "@nats-io/transport-node";
import {
  AgentInfo,
  BUCKETS,
  builderDevice,
  canonicalJson,
  decode,
  durables,
  encode,
  Job,
  JobResult,
  LeaseReply,
  LeaseRequest,
  Progress,
  subjects,
  type Lease,
  type Outcome,
} from "@vibeserve/shared";
import { ArtifactStore } from "../../coordinator/src/artifact/artifact-store.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { simulatedDevice, simulatedOutcome, type SpeedOf } from "./fake-outcomes.ts";

export interface FakeAgentOptions {
  url: string;
  ca?: string | undefined;
  agentId: string;
  seed: string;
  pool: string;
  /** What to do with a job once its lease is granted; default: answer at once. */
  work?: (job: Job, lease: Lease) => Promise<Outcome | "silent">;
}

/**
 * An agent that speaks the protocol and computes nothing: it registers a device that says it is simulated, takes jobs, leases, reports, signs.
 * For tests of the coordinator; everything on the bus between the two is real.
 */
export class FakeAgent implements AsyncDisposable {
  readonly nc: NatsConnection;
  readonly #options: FakeAgentOptions;
  readonly #pulls: ConsumerMessages[] = [];
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #unanswered: JsMsg[] = [];
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
    const nc = await connectBus({ servers: [options.url], ca: options.ca, seed: options.seed, principal: options.agentId });
    const agent = new FakeAgent(nc, options);
    await agent.register();
    agent.#timers.add(setInterval(() => void agent.register().catch(() => undefined), 5_000));
    await agent.#pull(durables.build(options.pool));
    await agent.#pull(durables.device(options.pool));
    return agent;
  }

  async register(info: AgentInfo = this.info): Promise<void> {
    const key = `$KV.${BUCKETS.agents}.${this.info.agentId}.info`;
    await jetstream(this.nc).publish(key, encode(AgentInfo, info, key));
  }

  /** As an agent does that drains: its entry goes, after its jobs went back into the queue. */
  async withdraw(): Promise<void> {
    for (const message of this.#unanswered.splice(0)) message.nak();
    await (await new Kvm(this.nc).open(BUCKETS.agents)).delete(`${this.info.agentId}.info`);
  }

  async askLease(job: { id: string; attempt: number }, deviceId: string = this.device.id): Promise<LeaseReply> {
    const subject = subjects.lease(this.info.agentId);
    const request: LeaseRequest = {
      v: 1,
      kind: "lease.request",
      agentId: this.info.agentId,
      deviceId,
      jobId: job.id,
      attempt: job.attempt,
    };
    return decode(LeaseReply, (await this.nc.request(subject, encode(LeaseRequest, request, subject), { timeout: 5_000 })).data, subject);
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
    await Promise.all(this.#pulls.map((p) => p.close()));
    await this.nc.close();
  }

  async #pull(durable: string): Promise<void> {
    const consumer = await jetstream(this.nc).consumers.get("VS_JOBS", durable);
    const messages = await consumer.consume({ max_messages: 1 });
    this.#pulls.push(messages);
    void (async () => {
      for await (const message of messages) await this.#take(message).catch(() => message.nak(200));
    })();
  }

  async #take(message: JsMsg): Promise<void> {
    const job = decode(Job, message.data, message.subject);
    const deviceId = job.spec.kind === "build" ? builderDevice(this.info.agentId) : this.device.id;
    const reply = await this.askLease(job, deviceId);
    if (reply.kind === "lease.refused") {
      if (reply.drop) message.ack();
      else message.nak(200);
      return;
    }
    const { lease } = reply;
    this.leases.push(lease);
    const startedAt = Date.now();
    this.report(job, lease, "starting");
    const answer = this.#options.work ? await this.#options.work(job, lease) : await this.outcome(job, lease);
    if (answer === "silent") {
      this.#unanswered.push(message);
      return;
    }
    await this.publish(this.signed(job, lease, answer, { startedAt }));
    message.ack();
  }
}
