import { Kvm } from "@nats-io/kv";
import { BUCKETS, type AgentInfo, type Job, type JobResult, type Lease, type Outcome } from "@vibeserve/shared";
import { ArtifactStore } from "../../coordinator/src/artifact/artifact-store.ts";
import { SimulatedAgent } from "../../coordinator/src/simulate/simulated-agent.ts";
import { simulatedDevice, simulatedOutcome, type SpeedOf } from "./fake-outcomes.ts";

export interface FakeAgentOptions {
  url: string;
  ca?: string | undefined;
  agentId: string;
  seed: string;
  claim?: string | undefined;
  pool: string;
  /** What to do with a job that it is given; default: answer at once. */
  work?: (job: Job, lease: Lease) => Promise<Outcome | "silent">;
}

/** The simulator's agent with outcomes that a test chooses; for tests of the coordinator. */
export class FakeAgent implements AsyncDisposable {
  readonly device;
  readonly #agent: SimulatedAgent;

  private constructor(agent: SimulatedAgent) {
    this.#agent = agent;
    this.device = simulatedDevice(agent.info.agentId);
  }

  static async start({ work, ...options }: FakeAgentOptions): Promise<FakeAgent> {
    const made = Promise.withResolvers<FakeAgent>();
    const agent = await SimulatedAgent.start({
      ...options,
      devices: [simulatedDevice(options.agentId)],
      work: async (job, lease) => (work ? work(job, lease) : (await made.promise).outcome(job, lease)),
      failed: () => undefined,
    });
    const fake = new FakeAgent(agent);
    made.resolve(fake);
    return fake;
  }

  get nc() {
    return this.#agent.nc;
  }

  get info(): AgentInfo {
    return this.#agent.info;
  }

  get leases(): readonly Lease[] {
    return this.#agent.leases;
  }

  async register(info?: AgentInfo): Promise<void> {
    await this.#agent.register(info);
  }

  /** As an agent does that drains, once it works on nothing any more: its entry goes. */
  async withdraw(): Promise<void> {
    await (await new Kvm(this.nc).open(BUCKETS.agents)).delete(`${this.info.agentId}.info`);
  }

  signed(job: Job, lease: Lease, outcome: Outcome, change: Partial<JobResult> = {}): JobResult {
    return this.#agent.signed(job, lease, outcome, change);
  }

  sign(value: unknown): string {
    return this.#agent.sign(value);
  }

  async publish(result: JobResult): Promise<void> {
    await this.#agent.publish(result);
  }

  report(job: Job, lease: Lease, phase?: string): void {
    this.#agent.report(job, lease, phase);
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
    await this.#agent[Symbol.asyncDispose]();
  }
}
