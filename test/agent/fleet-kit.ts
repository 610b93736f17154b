import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Kvm } from "@nats-io/kv";
import { fromPublic, fromSeed } from "@nats-io/nkeys";
import {
  AgentInfo,
  BUCKETS,
  canonicalJson,
  decode,
  durables,
  encode,
  Job,
  JobResult,
  LeaseReply,
  LeaseRequest,
  LeaseRevoked,
  Progress,
  STREAMS,
  subjects,
  type Lease,
} from "@vibeserve/shared";
import { ArtifactStore } from "../../coordinator/src/artifact/artifact-store.ts";
import { ensurePool } from "../../coordinator/src/bus/streams.ts";
import type { RealBroker } from "../kit/real-broker.ts";
import { bubblewrap } from "./kit.ts";
import { candidateFiles, packed } from "./tree-kit.ts";

const MAIN = join(import.meta.dirname, "../../gpu-agent/src/main.ts");
/** Short, so that a killed agent's job comes back within a test. */
export const ACK_WAIT_MS = 1_500;

/** A gpu-agent as its own process. */
export interface AgentProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  log(): string;
  kill(signal: NodeJS.Signals): void;
}

/** The coordinator's side of the bus, as small as it can be: grants leases, dispatches jobs, collects results and progress. */
export class TinyCoordinator {
  readonly broker: RealBroker;
  readonly results: JobResult[] = [];
  readonly progress: Progress[] = [];
  readonly leases: Lease[] = [];
  readonly requests: LeaseRequest[] = [];
  /** What the granter says; default: granted, with a token that rises. */
  grant: (request: LeaseRequest) => { reason: string; drop: boolean } | null = () => null;
  readonly #dir: string;
  readonly #seeds = new Map<string, string>();
  readonly #waiting = new Set<() => void>();
  readonly #agents: AgentProcess[] = [];
  #token = 100;
  #jobs = 0;

  constructor(broker: RealBroker, dir: string) {
    this.broker = broker;
    this.#dir = dir;
  }

  async open(): Promise<void> {
    const { nc, js } = this.broker.bus;
    nc.subscribe(subjects.lease("*"), {
      callback: (_error, message) => {
        const request = decode(LeaseRequest, message.data, message.subject);
        this.requests.push(request);
        const refusal = this.grant(request);
        const { agentId, deviceId, jobId, attempt } = request;
        const now = Date.now();
        const lease: Lease = {
          v: 1,
          kind: "lease",
          agentId,
          deviceId,
          jobId,
          attempt,
          token: this.#token++,
          grantedAt: now,
          ttlMs: 20_000,
          deadline: now + 60_000,
        };
        if (refusal === null) this.leases.push(lease);
        message.respond(
          encode(
            LeaseReply,
            refusal === null ? { v: 1, kind: "lease.granted", lease } : { v: 1, kind: "lease.refused", ...refusal },
            "reply",
          ),
        );
        this.#changed();
      },
    });
    nc.subscribe(subjects.progress("*", "*"), {
      callback: (_error, message) => {
        this.progress.push(decode(Progress, message.data, message.subject));
        this.#changed();
      },
    });
    void this.#collect(await js.consumers.get(STREAMS.results, "coordinator"));
  }

  async #collect(consumer: { consume(): Promise<AsyncIterable<{ data: Uint8Array; subject: string; ack(): void }>> }): Promise<void> {
    for await (const message of await consumer.consume()) {
      this.results.push(decode(JobResult, message.data, message.subject));
      message.ack();
      this.#changed();
    }
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

  /** Consumers of a pool: each test has its own, so that no agent takes another test's jobs. */
  async pool(name: string): Promise<void> {
    await ensurePool(this.broker.bus.jsm, name);
    for (const durable of [durables.build(name), durables.device(name)])
      await this.broker.bus.jsm.consumers.update(STREAMS.jobs, durable, { ack_wait: ACK_WAIT_MS * 1e6 });
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
    const subject = subjects.job(pool, job.spec.kind);
    await this.broker.bus.js.publish(subject, encode(Job, job, subject), { msgID: `${job.id}.${job.attempt}` });
    return job;
  }

  /** Starts (or starts again) an agent; its key and folder stay the same for an id. */
  async agent(id: string, pool: string, ...flags: string[]): Promise<AgentProcess> {
    const dir = join(this.#dir, id);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    if (!this.#seeds.has(id)) {
      this.#seeds.set(id, await this.broker.enroll(id, [pool]));
      writeFileSync(join(dir, "agent.nk"), this.#seeds.get(id) ?? "", { mode: 0o600 });
    }
    const argv = [
      MAIN,
      "--data",
      dir,
      "--servers",
      this.broker.broker.url,
      "--agent-id",
      id,
      "--pool",
      pool,
      // Else agents of one test, and of tests beside it, would wait for each other.
      ...(flags.includes("--machine-lock") ? [] : ["--machine-lock", `test-${process.pid}-${id}`]),
      ...(flags.includes("--cache") ? [] : await this.#bareCache()),
      ...flags,
    ];
    const child = spawn(process.execPath, argv, { stdio: ["ignore", "ignore", "pipe"] });
    let log = "";
    child.stderr.on("data", (chunk: Buffer) => (log += chunk.toString()));
    const agent: AgentProcess = {
      child,
      pid: child.pid ?? 0,
      exited: new Promise((resolve) => child.once("exit", (code, signal) => resolve({ code, signal }))),
      log: () => log,
      kill: (signal) => child.kill(signal),
    };
    this.#agents.push(agent);
    return agent;
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

  revoke(lease: Lease, reason: string): void {
    const { agentId, deviceId, jobId, attempt, token } = lease;
    const subject = subjects.agent(agentId, "revoke");
    this.broker.bus.nc.publish(
      subject,
      encode(LeaseRevoked, { v: 1, kind: "lease.revoked", agentId, deviceId, jobId, attempt, token, reason }, subject),
    );
  }

  /** Jobs of the pool that the stream still holds: a work queue drops what is acknowledged. */
  async jobsLeft(pool: string): Promise<number> {
    const info = await this.broker.bus.jsm.streams.info(STREAMS.jobs, { subjects_filter: subjects.job(pool, "*") });
    return Object.values(info.state.subjects ?? {}).reduce((sum, n) => sum + n, 0);
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
    await this.broker[Symbol.asyncDispose]();
  }
}
