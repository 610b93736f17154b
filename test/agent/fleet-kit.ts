import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Kvm } from "@nats-io/kv";
import { fromPublic, fromSeed } from "@nats-io/nkeys";
import {
  AgentInfo,
  BUCKETS,
  canonicalJson,
  decode,
  encode,
  LeaseRevoked,
  Progress,
  subjects,
  type Job,
  type JobResult,
  type Lease,
} from "@vibeserve/shared";
import { ArtifactStore } from "../../coordinator/src/artifact/artifact-store.ts";
import { AgentRegistry } from "../../coordinator/src/fleet/agent-registry.ts";
import { unclaimed } from "../../coordinator/src/fleet/dispatcher.ts";
import { Fleet } from "../../coordinator/src/fleet/fleet.ts";
import { agentProcess, type AgentProcess } from "../kit/agent-process.ts";
import type { RealBroker } from "../kit/real-broker.ts";
import { bubblewrap } from "./kit.ts";
import { candidateFiles, packed } from "./tree-kit.ts";

/** A job that was given out. */
export type Granted = Pick<Lease, "agentId" | "deviceId" | "jobId" | "attempt" | "token">;

/** A coordinator with its fleet and no campaigns: what is published is offered until it is answered; an attempt that is lost is asked for again. */
export class TinyCoordinator {
  readonly broker: RealBroker;
  readonly results: JobResult[] = [];
  readonly progress: Progress[] = [];
  readonly leases: Granted[] = [];
  /** What is published is for simulated devices. */
  simulated = false;
  /** How the next agents are started: flags of node, a command line that runs them, where they dial; absent: the broker itself. Set before `open`: the ttl of leases. */
  nodeFlags: readonly string[] = [];
  within: readonly string[] = [];
  dial: string | null = null;
  leaseTtlMs: number | undefined = undefined;
  /** Attempts that ended without an answer, and whose that is. */
  readonly lost: { jobId: string; attempt: number; why: string; as: string | undefined }[] = [];
  readonly #dir: string;
  readonly #seeds = new Map<string, string>();
  readonly #waiting = new Set<() => void>();
  readonly #agents: AgentProcess[] = [];
  /** By id; those that are not answered yet. */
  readonly #open = new Map<string, Job>();
  readonly #parts = new AsyncDisposableStack();
  #fleet: Fleet | null = null;
  #jobs = 0;

  constructor(broker: RealBroker, dir: string) {
    this.broker = broker;
    this.#dir = dir;
  }

  async open(): Promise<void> {
    const { bus, broker } = this.broker;
    const enrolled = (id: string) => broker.agents.find((a) => a.agentId === id) ?? null;
    const log = (event: string, facts: Record<string, unknown>) => {
      if (event === "lease.granted") this.leases.push(facts as Granted);
      this.#changed();
    };
    const registry = this.#parts.use(await AgentRegistry.open({ ...bus, enrolled, log }));
    this.#fleet = this.#parts.use(
      await Fleet.open({
        ...{ ...bus, registry, log },
        ...(this.leaseTtlMs === undefined ? {} : { leaseTtlMs: this.leaseTtlMs }),
        publicKeyOf: (id) => enrolled(id)?.publicKey ?? null,
        campaigns: {
          standing: ({ id, attempt }) =>
            this.#open.get(id)?.attempt === attempt ? { kind: "open" } : { kind: "over", reason: "answered" },
          expire: async ({ id, attempt }, why, as) => {
            this.lost.push({ jobId: id, attempt, why, as });
            const job = this.#open.get(id);
            if (job?.attempt === attempt) this.#offer({ ...job, attempt: attempt + 1 });
          },
          settle: async (result, stale) => {
            this.results.push(result);
            if (stale === null) this.#open.delete(result.jobId);
            this.#changed();
            return stale === null;
          },
        },
      }),
    );
    bus.nc.subscribe(subjects.progress("*", "*"), {
      callback: (_error, message) => {
        this.progress.push(decode(Progress, message.data, message.subject));
        this.#changed();
      },
    });
  }

  /** Everything between campaigns and agents. */
  get fleet(): Fleet {
    if (!this.#fleet) throw new Error("not open");
    return this.#fleet;
  }

  /** Resolves once the condition holds; looks at it whenever something arrives. */
  async until(what: string, condition: () => boolean, limitMs = 15_000): Promise<void> {
    const ends = Date.now() + limitMs;
    while (!condition()) {
      const leftMs = ends - Date.now();
      if (leftMs <= 0) throw new Error(`not within ${limitMs} ms: ${what}\n${this.#agents.map((a) => a.log()).join("\n")}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(leftMs, 100));
        this.#waiting.add(() => {
          clearTimeout(timer);
          resolve();
        });
      });
      this.#waiting.clear();
    }
  }

  #changed(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /** Uploads a tree and publishes a build of it. */
  async build(
    pool: string,
    files: Map<string, Uint8Array> = candidateFiles("plain"),
    more: Partial<Job> = {},
    provenance: "shipped" | "model" = "model",
  ): Promise<Job> {
    const { tar, treeDigest } = packed(files);
    const store = await ArtifactStore.open(this.broker.bus.nc);
    return this.publish(pool, { kind: "build", treeDigest, tree: await store.put(tar), provenance }, more);
  }

  async publish(pool: string, spec: Job["spec"], more: Partial<Job> = {}): Promise<Job> {
    const job: Job = {
      v: 1,
      kind: "job",
      id: `job-${this.#jobs++}`,
      campaign: "c1",
      experiment: "e1",
      attempt: 1,
      pool,
      issuedAt: Date.now(),
      deadlineMs: 60_000,
      spec,
      ...more,
    };
    this.#offer(job);
    return job;
  }

  #offer(job: Job): void {
    this.#open.set(job.id, job);
    this.#fleet?.dispatcher.offer(job, unclaimed(this.simulated));
  }

  /** Starts (or starts again) an agent; its key and folder stay the same for an id. */
  async agent(id: string, pool: string, ...flags: string[]): Promise<AgentProcess> {
    const dir = this.dataOf(id);
    await this.#seedOf(id, pool);
    const args = [
      "--data",
      dir,
      "--servers",
      this.dial ?? this.broker.broker.url,
      "--agent-id",
      id,
      "--pool",
      pool,
      // Else agents of one test, and of tests beside it, would wait for each other.
      ...(flags.includes("--machine-lock") ? [] : ["--machine-lock", `test-${process.pid}-${id}`]),
      ...(flags.includes("--cache") ? [] : await this.#bareCache()),
      ...flags,
    ];
    const agent = agentProcess(args, { nodeFlags: this.nodeFlags, within: this.within });
    this.#agents.push(agent);
    return agent;
  }

  async #seedOf(id: string, pool: string): Promise<string> {
    const known = this.#seeds.get(id);
    if (known !== undefined) return known;
    const seed = await this.broker.enroll(id, [pool]);
    this.#seeds.set(id, seed);
    mkdirSync(this.dataOf(id), { recursive: true, mode: 0o700 });
    writeFileSync(join(this.dataOf(id), "agent.nk"), seed, { mode: 0o600 });
    return seed;
  }

  /** What the agent of this id and pool signs, before it was ever started. */
  async sign(id: string, value: unknown): Promise<string> {
    const key = fromSeed(new TextEncoder().encode(await this.#seedOf(id, id)));
    return Buffer.from(key.sign(new TextEncoder().encode(canonicalJson(value)))).toString("base64");
  }

  /** A cache with a sandbox and no weights: then the agent has no hidden pool to fill in the background. */
  async #bareCache(): Promise<string[]> {
    const { bwrap } = await bubblewrap();
    return ["--cache", join(this.#dir, "cache"), ...(bwrap === null ? [] : ["--bwrap", bwrap])];
  }

  dataOf(id: string): string {
    return join(this.#dir, id);
  }

  async registered(id: string): Promise<AgentInfo | null> {
    const bucket = await new Kvm(this.broker.bus.nc).open(BUCKETS.agents);
    const entry = await bucket.get(`${id}.info`);
    return entry?.operation === "PUT" ? decode(AgentInfo, entry.value, entry.key) : null;
  }

  /** The agent has heard all that it was told so far: it answers the roll call that was sent after it. */
  async rolled(id: string): Promise<void> {
    const { nc } = this.broker.bus;
    const beat = new Promise((resolve) => nc.subscribe(subjects.beat(id), { max: 1, callback: resolve }));
    nc.publish(subjects.roll);
    await beat;
  }

  /** Tells the agent that the lease is over, whether it is or not. */
  revoke({ agentId, deviceId, jobId, attempt, token }: Granted, reason: string): void {
    const subject = subjects.agent(agentId, "revoke");
    this.broker.bus.nc.publish(
      subject,
      encode(LeaseRevoked, { v: 1, kind: "lease.revoked", agentId, deviceId, jobId, attempt, token, reason }, subject),
    );
  }

  /** Nobody wants the job any more. */
  cancel(jobId: string, reason: string): void {
    this.#open.delete(jobId);
    this.#fleet?.dispatcher.over(jobId, reason);
  }

  /** Jobs of the pool that are not answered. */
  jobsLeft(pool: string): number {
    return [...this.#open.values()].filter((job) => job.pool === pool).length;
  }

  /** The signature is the agent's own. */
  isSigned(result: JobResult, agentId: string): boolean {
    const { sig, ...rest } = result;
    const seed = this.#seeds.get(agentId) ?? "";
    const key = fromPublic(fromSeed(new TextEncoder().encode(seed)).getPublicKey());
    return key.verify(new TextEncoder().encode(canonicalJson(rest)), Buffer.from(sig, "base64"));
  }

  async close(): Promise<void> {
    for (const agent of this.#agents) agent.kill("SIGKILL");
    await Promise.all(this.#agents.map((a) => a.exited));
    await this.#parts[Symbol.asyncDispose]();
    await this.broker[Symbol.asyncDispose]();
  }
}
