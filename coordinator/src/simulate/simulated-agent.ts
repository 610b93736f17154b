import { jetstream, jetstreamManager, type JetStreamClient } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import {
  AgentInfo,
  Assignment,
  Beat,
  BUCKETS,
  builderDevice,
  canonicalJson,
  decode,
  encode,
  JobResult,
  leaseOf,
  nkeyOf,
  Progress,
  subjects,
  type Device,
  type Job,
  type Lease,
  type NKey,
  type Outcome,
} from "@vibeserve/shared";
import { connectBus } from "../bus/connect.ts";
import { simulatedAgent, simulatedResult } from "./simulated-records.ts";

export interface SimulatedAgentOptions {
  /** Or several, comma-separated. */
  url: string;
  /** PEM of the broker's authority; absent: no TLS. */
  ca?: string | undefined;
  agentId: string;
  seed: string;
  /** On a cluster; absent: the broker knows its key. */
  claim?: string | undefined;
  pool: string;
  devices: Device[];
  /** What to do with a job that it is given; "silent": no answer ever. */
  work: (job: Job, lease: Lease, agent: SimulatedAgent) => Promise<Outcome | "silent">;
  /** Its work failed, or it was told something that it does not understand. */
  failed: (error: unknown, agent: SimulatedAgent) => void;
}

const BEAT_MS = 5_000;

/**
 * An agent that speaks the protocol and computes nothing: it registers a device that says it is simulated, takes what it is assigned, reports, signs. Everything on
 * the bus between it and a coordinator is real. Thousands run in one process.
 */
export class SimulatedAgent implements AsyncDisposable {
  readonly nc: NatsConnection;
  readonly info: AgentInfo;
  /** Leases that it was given, in order. */
  readonly leases: Lease[] = [];
  readonly #options: SimulatedAgentOptions;
  readonly #key: NKey;
  readonly #js: JetStreamClient;
  readonly #beating: NodeJS.Timeout;
  readonly #taken = new Map<string, number>();
  readonly #failed = (error: unknown): void => this.#options.failed(error, this);
  /** As one that was stopped (SIGSTOP): it says nothing meanwhile. */
  frozen = false;

  private constructor(nc: NatsConnection, options: SimulatedAgentOptions) {
    const { agentId, seed, pool, devices } = options;
    const real = devices.find((d) => !d.simulated);
    if (real) throw new Error(`device ${real.id} of a simulated agent must say that it is simulated`);
    this.nc = nc;
    this.#js = jetstream(nc);
    this.#options = options;
    this.#key = nkeyOf(seed);
    this.info = simulatedAgent(agentId, this.#key.publicKey, pool, devices, Date.now());
    this.#beating = setInterval(() => this.beat(), BEAT_MS);
  }

  /** Connects, listens and registers. */
  static async start(options: SimulatedAgentOptions): Promise<SimulatedAgent> {
    const { url, ca, seed, claim, agentId } = options;
    const nc = await connectBus({ servers: url.split(","), ca, seed, claim, principal: agentId });
    const agent = new SimulatedAgent(nc, options);
    nc.subscribe(subjects.assigned(agentId, "*"), {
      callback: (error, message) => {
        if (error) agent.#failed(error);
        else agent.#read(message.data, Number(message.headers?.get("Nats-Sequence")), message.subject);
      },
    });
    nc.subscribe(subjects.roll, { callback: () => agent.beat() });
    void agent.#watchConnection();
    await agent.register();
    return agent;
  }

  async register(info: AgentInfo = this.info): Promise<void> {
    const key = `$KV.${BUCKETS.agents}.${this.info.agentId}.info`;
    await this.#js.publish(key, encode(AgentInfo, info, key));
  }

  beat(): void {
    if (this.frozen || this.nc.isClosed()) return;
    const { agentId, startedAt } = this.info;
    this.nc.publish(subjects.beat(agentId), encode(Beat, { v: 1, kind: "beat", agentId, startedAt }, "beat"));
  }

  report(job: Job, lease: Lease, phase = "working"): void {
    if (this.frozen || this.nc.isClosed()) return;
    const subject = subjects.progress(this.info.agentId, job.id);
    const { id: jobId, campaign, attempt } = job;
    const { agentId } = this.info;
    const of = { jobId, campaign, attempt, agentId, leaseToken: lease.token };
    const progress: Progress = { v: 1, kind: "progress", ...of, phase, at: Date.now() };
    this.nc.publish(subject, encode(Progress, progress, subject));
  }

  signed(job: Job, lease: Lease, outcome: Outcome, change: Partial<JobResult> = {}): JobResult {
    const now = Date.now();
    const by = { ...lease, agentId: this.info.agentId };
    const body = { ...simulatedResult(job, by, { startedAt: now, endedAt: now }, outcome), ...change };
    return { ...body, sig: this.sign(body) };
  }

  /** base64 of the NKey's signature over canonicalJson(value). */
  sign(value: unknown): string {
    return this.#key.sign(new TextEncoder().encode(canonicalJson(value)));
  }

  /** Until the stream has it. */
  async publish(result: JobResult): Promise<void> {
    const subject = subjects.result(this.info.agentId, result.campaign);
    for (;;)
      try {
        await this.#js.publish(subject, encode(JobResult, result, subject), { timeout: 1_000 });
        return;
      } catch (error) {
        if (this.nc.isClosed()) throw error;
      }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#beating);
    await this.nc.close();
  }

  async #watchConnection(): Promise<void> {
    for await (const status of this.nc.status()) if (status.type === "reconnect") await this.#look().catch(this.#failed);
  }

  /** What was assigned while it was cut off was told to nobody. */
  async #look(): Promise<void> {
    const jsm = await jetstreamManager(this.nc, { checkAPI: false });
    for (const device of [...this.info.devices.map((d) => d.id), builderDevice(this.info.agentId)]) {
      const key = subjects.assignment(this.info.agentId, device);
      const stored = await jsm.direct.getMessage(`KV_${BUCKETS.leases}`, { last_by_subj: key });
      if (stored) this.#read(stored.data, stored.seq, key);
    }
  }

  #read(data: Uint8Array, token: number, subject: string): void {
    // Erased: what was handed back.
    if (data.length === 0) return;
    const assignment = decode(Assignment, data, subject);
    if (assignment.agentStartedAt !== this.info.startedAt) return;
    const lease = leaseOf(assignment, token);
    if ((this.#taken.get(lease.deviceId) ?? 0) >= token) return;
    this.#taken.set(lease.deviceId, token);
    this.#work(assignment.job, lease).catch(this.#failed);
  }

  async #work(job: Job, lease: Lease): Promise<void> {
    this.leases.push(lease);
    const startedAt = Date.now();
    this.report(job, lease, "starting");
    const answer = await this.#options.work(job, lease, this);
    if (answer !== "silent") await this.publish(this.signed(job, lease, answer, { startedAt, endedAt: Date.now() }));
  }
}
