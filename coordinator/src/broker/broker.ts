import type { ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import type { NatsConnection } from "@nats-io/transport-node";
import { z } from "zod";
import { Backoff, delay } from "../process/backoff.ts";
import { isAlive, type ProcessIdentity } from "../process/identity.ts";
import { stopProcess } from "../process/stop.ts";
import { launch } from "./launch.ts";
import { loadPrincipals, publicKeyOf, saveAgents, writePrivate, type AgentPrincipal, type Principals } from "./principals.ts";
import { serverConfig } from "./server-config.ts";
import { connectSystem, readSettings, reloadConfiguration, requireDurable, type BrokerSettings } from "./settings.ts";

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
  log: (event: string, facts: Record<string, unknown>) => void;
}

type Phase =
  | { kind: "running"; identity: ProcessIdentity; child: ChildProcess | null; system: NatsConnection; startedAt: number }
  | { kind: "restarting" }
  | { kind: "stopped" };

const PidFile = z.object({ pid: z.int(), start: z.string(), port: z.int() });

/** A server that held this long had no trouble starting: the next restart begins with the shortest delay again. */
const STEADY_MS = 30_000;
/** JetStream has synced all it acknowledged; closing its files took < 100 ms. */
const STOP_GRACE_MS = 5_000;

export class Broker {
  readonly #options: BrokerOptions;
  readonly #principals: Principals;
  readonly #backoff = new Backoff(50, 5_000);
  readonly #stop = new AbortController();
  #phase: Phase = { kind: "restarting" };
  #port: number;
  #settings: BrokerSettings = { version: "", syncAlways: false, storeDir: "" };

  private constructor(options: BrokerOptions, principals: Principals) {
    this.#options = options;
    this.#principals = principals;
    this.#port = options.port;
  }

  /** Starts or adopts the server. Throws BrokerStartError or BrokerSettingsError. */
  static async start(options: BrokerOptions): Promise<Broker> {
    for (const folder of [options.dir, dirname(options.logFile)]) mkdirSync(folder, { recursive: true, mode: 0o700 });
    const broker = new Broker(options, loadPrincipals(join(options.dir, "keys")));
    if (!(await broker.#adopt())) await broker.#launch();
    return broker;
  }

  get url(): string {
    return `nats://${this.#options.host}:${this.#port}`;
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

  /** Adds an agent's user, or widens its pools, and makes the server read it. False: the id belongs to another key. */
  async enroll(agent: AgentPrincipal): Promise<boolean> {
    const known = this.#principals.agents.find((a) => a.agentId === agent.agentId);
    if (known && known.publicKey !== agent.publicKey) return false;
    const owner = this.#principals.agents.find((a) => a.publicKey === agent.publicKey);
    if (owner && owner.agentId !== agent.agentId) return false;
    if (Object.values(this.#principals.seeds).some((seed) => publicKeyOf(seed) === agent.publicKey)) return false;
    const same = known && agent.pools.every((pool) => known.pools.includes(pool));
    if (same) return true;
    const pools = [...new Set([...(known?.pools ?? []), ...agent.pools])];
    this.#principals.agents = [...this.#principals.agents.filter((a) => a !== known), { ...agent, pools }];
    saveAgents(join(this.#options.dir, "keys"), this.#principals.agents);
    this.#writeConfig();
    if (this.#phase.kind === "running") await reloadConfiguration(this.#phase.system);
    return true;
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
    });
    writePrivate(this.#configFile, config);
  }

  async #adopt(): Promise<boolean> {
    const left = this.#readPidFile();
    if (!left || !isAlive(left)) return false;
    const { port, ...identity } = left;
    try {
      this.#port = port;
      await this.#connect(identity, null);
      this.#writeConfig();
      if (this.#phase.kind === "running") await reloadConfiguration(this.#phase.system);
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
    this.#writeConfig();
    const files = {
      binary,
      configFile: this.#configFile,
      portsDir: join(dir, "ports"),
      errorFile: join(dir, "nats-server.err"),
      logFile,
      accounts: this.agents.length,
    };
    const launched = await launch(files, (identity) => this.#writePidFile(identity, 0));
    this.#port = launched.port;
    this.#writePidFile(launched.identity, launched.port);
    try {
      await this.#connect(launched.identity, launched.child);
    } catch (error) {
      await stopProcess(launched.identity, STOP_GRACE_MS);
      throw error;
    }
    this.#options.log("broker.started", { pid: launched.identity.pid, port: launched.port, version: this.#settings.version });
  }

  async #connect(identity: ProcessIdentity, child: ChildProcess | null): Promise<void> {
    const system = await connectSystem(this.url, this.seeds.system);
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
