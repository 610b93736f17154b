import type { ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import type { NatsConnection } from "@nats-io/transport-node";
import { brokerUrl, isLoopback } from "@vibeserve/shared";
import { z } from "zod";
import { Backoff, delay } from "../process/backoff.ts";
import { isAlive, type ProcessIdentity } from "../process/identity.ts";
import { stopProcess } from "../process/stop.ts";
import type { BrokerAccess } from "./access.ts";
import { BrokerStartError, launch } from "./launch.ts";
import { admitted, loadPrincipals, saveAgents, writePrivate, type AgentPrincipal, type Principals } from "./principals.ts";
import { serverConfig } from "./server-config.ts";
import { connectSystem, readSettings, reloadConfiguration, requireDurable, type BrokerSettings } from "./settings.ts";
import { isWildcard, type BrokerTls } from "./tls.ts";

/**
 * The supervisor of one nats-server: started once, restarted when it dies, stopped when asked.
 *   B1. A server runs only with the settings that durability needs: each start is verified on the running server, not in its file.
 *   B2. Within one life of this supervisor the port never changes, so that clients which redial find the server again.
 *   B3. A server left over by a supervisor that was killed is adopted when it is alive and durable, and replaced otherwise.
 *   B4. A pid is only ever signalled together with its start time: a foreign process that got the same pid is left alone.
 */
export interface BrokerOptions {
  binary: string;
  /** Folder of configuration, keys and JetStream's files. */
  dir: string;
  logFile: string;
  host: string;
  /** -1: a random free port. */
  port: number;
  /** How it is encrypted (`brokerTls`). Needed where other machines may dial. */
  tls?: BrokerTls | null;
  /** HOST or HOST:PORT that nodes dial, where it is not what it listens on. */
  advertise?: string | null;
  log: (event: string, facts: Record<string, unknown>) => void;
}

type Phase =
  | { kind: "running"; identity: ProcessIdentity; child: ChildProcess | null; system: NatsConnection; startedAt: number }
  | { kind: "restarting" }
  | { kind: "stopped" };

const PidFile = z.object({ pid: z.int(), start: z.string(), port: z.int() });

/** A server that held this long had no trouble starting: the next restart begins with the shortest delay again. */
const STEADY_MS = 30_000;
/** A server is started with memory for so many agents at the least, and for twice as many as are enrolled; one more and it is started anew. */
const ROOM = 128;
/** JetStream has synced all it acknowledged; closing its files took < 100 ms. */
const STOP_GRACE_MS = 5_000;

export class Broker implements BrokerAccess {
  readonly replicas = 1;
  readonly claims = {};
  readonly #options: BrokerOptions;
  readonly #principals: Principals;
  readonly #backoff = new Backoff(50, 5_000);
  readonly #stop = new AbortController();
  #phase: Phase = { kind: "restarting" };
  #port: number;
  /** Agents that the running server has memory for. */
  #room = 0;
  /** Rises with each change of who may connect; what the running server has read of them. */
  #changes = 0;
  #readChanges = 0;
  #reading: Promise<void> | null = null;
  #settings: BrokerSettings = { version: "", syncAlways: false, storeDir: "" };

  private constructor(options: BrokerOptions, principals: Principals) {
    this.#options = options;
    this.#principals = principals;
    this.#port = options.port;
  }

  /** Starts or adopts the server. Throws BrokerStartError or BrokerSettingsError. */
  static async start(options: BrokerOptions): Promise<Broker> {
    if (!options.tls && !isLoopback(options.host))
      throw new BrokerStartError(`a broker that listens on ${options.host} needs TLS; without, it may listen on 127.0.0.1 only`);
    for (const folder of [options.dir, dirname(options.logFile)]) mkdirSync(folder, { recursive: true, mode: 0o700 });
    const broker = new Broker(options, loadPrincipals(join(options.dir, "keys")));
    if (!(await broker.#adopt())) await broker.#launch();
    return broker;
  }

  /** By which this machine dials it. */
  get url(): string {
    const { tls, host } = this.#options;
    return brokerUrl(Boolean(tls), tls?.localHost ?? host, this.#port);
  }

  /** By which nodes dial it. */
  get publicUrl(): string {
    const { tls, host, advertise } = this.#options;
    const [, named, port] = /^(.*?)(?::(\d+))?$/.exec(advertise ?? (isWildcard(host) ? hostname() : host)) ?? [];
    return brokerUrl(Boolean(tls), named ?? host, port === undefined ? this.#port : Number(port));
  }

  /** PEM of the authority of its certificate; undefined: no TLS. */
  get ca(): string | undefined {
    return this.#options.tls?.ca;
  }

  get fingerprint(): string | null {
    return this.#options.tls?.fingerprint ?? null;
  }

  /** Folder of keys and of who is enrolled. */
  get keys(): string {
    return join(this.#options.dir, "keys");
  }

  get pid(): number | null {
    return this.#phase.kind === "running" ? this.#phase.identity.pid : null;
  }

  get settings(): BrokerSettings {
    return this.#settings;
  }

  get seeds(): Principals["seeds"] {
    return this.#principals.seeds;
  }

  get agents(): readonly AgentPrincipal[] {
    return this.#principals.agents;
  }

  /** Adds an agent's user, or widens its pools, and makes the server read it. False: the id belongs to another key, or the key is none. */
  async enroll(agent: AgentPrincipal): Promise<boolean> {
    const agents = admitted(this.#principals.agents, this.seeds, agent);
    if (agents === null) return false;
    if (agents !== this.#principals.agents) this.#keep(agents);
    await this.#read();
    return true;
  }

  /** The server knows every key. */
  claimOf(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** Takes an agent's user away; the server closes its connections when it reads that. Safe to run again. */
  async expel(agentId: string): Promise<void> {
    this.#keep(this.#principals.agents.filter((a) => a.agentId !== agentId));
    await this.#read();
  }

  /** On disk before anything awaits: who asks next meets the change. */
  #keep(agents: readonly AgentPrincipal[]): void {
    this.#principals.agents = agents;
    saveAgents(this.keys, agents);
    this.#changes++;
  }

  /** Until the server has read all changes up to now. Those of many callers are read at once. A server that is being started reads them when it is up. */
  async #read(): Promise<void> {
    const wanted = this.#changes;
    while (this.#readChanges < wanted && this.#phase.kind === "running") {
      this.#reading ??= this.#reload(this.#phase.system).finally(() => (this.#reading = null));
      await this.#reading;
    }
  }

  async #reload(system: NatsConnection): Promise<void> {
    const changes = this.#changes;
    this.#writeConfig();
    if (this.agents.length > this.#room) await this.restart();
    else await reloadConfiguration(system);
    this.#readChanges = changes;
  }

  /** Ends the server; the supervisor starts it again on the same port. Does nothing while it is being started anyway. */
  async restart(): Promise<void> {
    if (this.#phase.kind === "running") await stopProcess(this.#phase.identity, STOP_GRACE_MS);
  }

  /** Stops the server; it has nothing unsynced (B1). */
  async close(): Promise<void> {
    const phase = this.#phase;
    this.#phase = { kind: "stopped" };
    this.#stop.abort();
    if (phase.kind !== "running") return;
    await phase.system.close();
    await stopProcess(phase.identity, STOP_GRACE_MS);
    rmSync(this.#pidFile, { force: true });
  }

  get #pidFile(): string {
    return join(this.#options.dir, "broker.json");
  }

  get #configFile(): string {
    return join(this.#options.dir, "nats.conf");
  }

  #writeConfig(): void {
    const { dir, logFile, host } = this.#options;
    const config = serverConfig({
      principals: this.#principals,
      storeDir: join(dir, "jetstream"),
      portsDir: join(dir, "ports"),
      logFile,
      host,
      port: this.#port,
      tlsFile: this.#options.tls?.file ?? null,
    });
    writePrivate(this.#configFile, config);
  }

  async #adopt(): Promise<boolean> {
    const left = this.#readPidFile();
    if (!left || !isAlive(left)) return false;
    const { port, ...identity } = left;
    try {
      this.#port = port;
      this.#room = Math.max(ROOM, this.agents.length);
      await this.#connect(identity, null);
      this.#changes++;
      await this.#read();
      this.#options.log("broker.adopted", { pid: identity.pid, port });
      return true;
    } catch (error) {
      this.#options.log("broker.replaced", { pid: identity.pid, why: error instanceof Error ? error.message : String(error) });
      await stopProcess(identity, STOP_GRACE_MS);
      this.#port = this.#options.port;
      return false;
    }
  }

  async #launch(): Promise<void> {
    const { binary, dir, logFile } = this.#options;
    this.#room = Math.max(ROOM, 2 * this.agents.length);
    const changes = this.#changes;
    this.#writeConfig();
    const files = {
      binary,
      configFile: this.#configFile,
      portsDir: join(dir, "ports"),
      errorFile: join(dir, "nats-server.err"),
      logFile,
      agents: this.#room,
    };
    const launched = await launch(files, (identity) => this.#writePidFile(identity, 0));
    this.#port = launched.port;
    this.#writePidFile(launched.identity, launched.port);
    try {
      await this.#connect(launched.identity, launched.child);
      this.#readChanges = changes;
      await this.#read();
    } catch (error) {
      await stopProcess(launched.identity, STOP_GRACE_MS);
      throw error;
    }
    this.#options.log("broker.started", { pid: launched.identity.pid, port: launched.port, version: this.#settings.version });
  }

  async #connect(identity: ProcessIdentity, child: ChildProcess | null): Promise<void> {
    const system = await connectSystem([this.url], this.seeds.system, this.ca);
    try {
      this.#settings = await readSettings(system);
      requireDurable(this.#settings);
    } catch (error) {
      await system.close();
      throw error;
    }
    this.#phase = { kind: "running", identity, child, system, startedAt: Date.now() };
    if (child) child.once("exit", (code, signal) => void this.#died(identity, `exit ${code ?? signal ?? "?"}`));
    else void this.#watchAdopted(identity, system);
  }

  /** An adopted server is not our child, so its end is seen as a lost connection. */
  async #watchAdopted(identity: ProcessIdentity, system: NatsConnection): Promise<void> {
    for await (const status of system.status())
      if (status.type === "disconnect" && !isAlive(identity)) {
        void this.#died(identity, "connection lost, process gone");
        return;
      }
  }

  async #died(identity: ProcessIdentity, how: string): Promise<void> {
    const phase = this.#phase;
    if (phase.kind !== "running" || phase.identity !== identity) return;
    this.#phase = { kind: "restarting" };
    this.#options.log("broker.died", { pid: identity.pid, how });
    await phase.system.close();
    if (Date.now() - phase.startedAt > STEADY_MS) this.#backoff.reset();
    for (;;) {
      await delay(this.#backoff.nextMs(), this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      try {
        await this.#launch();
        return;
      } catch (error) {
        this.#options.log("broker.restart-failed", { why: error instanceof Error ? error.message : String(error) });
      }
    }
  }

  /** port 0: it does not listen yet. */
  #writePidFile(identity: ProcessIdentity, port: number): void {
    writePrivate(this.#pidFile, JSON.stringify({ ...identity, port }));
  }

  #readPidFile(): z.infer<typeof PidFile> | null {
    if (!existsSync(this.#pidFile)) return null;
    const parsed = PidFile.safeParse(JSON.parse(readFileSync(this.#pidFile, "utf8")));
    return parsed.success ? parsed.data : null;
  }
}
