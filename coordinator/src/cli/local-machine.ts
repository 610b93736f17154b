import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { ApiClient } from "../api/client.ts";
import { commandLine } from "../command-line.ts";
import { daemonEnvironment, childEnvironment, type Settings } from "../config.ts";
import { SupervisedChild } from "../process/child.ts";
import { signalProcess, type ProcessIdentity } from "../process/identity.ts";
import type { EventLogger } from "../process/log-file.ts";
import { lookAt, stopOrphan } from "../process/orphans.ts";
import { readJson } from "../process/read-json.ts";
import { inTime } from "../process/within.ts";
import { agentArgs, enrollAgent, type AgentOptions } from "./agent-process.ts";
import { loadContext } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import { aborted } from "./stop-signal.ts";
import { upLock } from "./up.ts";

/**
 * The processes of one `start`: coordinator (which runs the broker) and agent, each supervised.
 *   M1. None outlives the start that began them: they stop when it stops them, when it dies (they see its channel close), or at the latest when the
 *       next start finds them.
 *   M2. Never are two coordinators or two agents at work in one data folder.
 */
export interface MachineOptions {
  settings: Settings;
  agent: AgentOptions;
  /** A second one beside it, with an id and a folder of its own; absent: none. */
  second?: { settings: Settings; agent: AgentOptions };
  natsServer: string;
  /** Exchanges with models are kept. */
  record: boolean;
  /** Something keeps the campaign from going on that a person can mend. */
  trouble: (message: string) => void;
  log: EventLogger;
}

/** Replaying long campaigns included; a broker that recovers a large store took < 2 s. */
const READY_LIMIT_MS = 60_000;
/** The agent's own bounds after SIGTERM add up to 43 s in the worst case (drain 10, stop 7, goodbye 4, last resort 25). */
const AGENT_GRACE_MS = 45_000;
const COORDINATOR_GRACE_MS = 15_000;

const agentPidFile = (data: string) => join(data, "agent.pid");

export class LocalMachine {
  readonly client: ApiClient;
  readonly #settings: Settings;
  readonly #up: SupervisedChild;
  readonly #agents: readonly SupervisedChild[];

  private constructor(settings: Settings, client: ApiClient, coordinator: SupervisedChild, agents: readonly SupervisedChild[]) {
    this.#settings = settings;
    this.client = client;
    this.#up = coordinator;
    this.#agents = agents;
  }

  /** Starts both and enrols the agent. Rejects when one of them can't run, with what it said; nothing is left running then. */
  static async start(options: MachineOptions, signal: AbortSignal): Promise<LocalMachine> {
    const { settings, log } = options;
    const ready = Promise.withResolvers<undefined>();
    const coordinator = new SupervisedChild({
      name: "coordinator",
      command: process.execPath,
      args: [join(import.meta.dirname, "../main.ts"), "up", "--data", settings.data],
      env: childEnvironment({ VIBESERVE_NATS_SERVER: options.natsServer, ...(options.record ? { VIBESERVE_RECORD: "1" } : {}) }),
      logFile: join(settings.data, "logs", "coordinator.out"),
      pidFile: null,
      onMessage: (message) => {
        if (Ready.safeParse(message).success) ready.resolve(undefined);
        const trouble = Trouble.safeParse(message);
        if (trouble.success) options.trouble(trouble.data.message);
      },
      log,
    });
    const agents: SupervisedChild[] = [];
    try {
      coordinator.start();
      const stopped = aborted(signal).then(() => Promise.reject(new CliError(EXIT.negative, "stopped before the campaign began")));
      const late = () => new CliError(EXIT.unreachable, `the coordinator is not ready after ${READY_LIMIT_MS / 1000} s`);
      await inTime(Promise.race([ready.promise, coordinator.failed, stopped]), READY_LIMIT_MS, late);
      const client = await ApiClient.connect(loadContext(settings, undefined));
      for (const { settings: own, agent } of [{ settings, agent: options.agent }, ...(options.second ? [options.second] : [])]) {
        const servers = await enrollAgent(own, agent, client, signal);
        const child = new SupervisedChild({
          name: "agent",
          command: process.execPath,
          args: agentArgs(own, agent, servers),
          env: daemonEnvironment(),
          logFile: join(own.data, "logs", "agent.log"),
          pidFile: agentPidFile(own.data),
          log,
        });
        child.start();
        agents.push(child);
      }
      return new LocalMachine(settings, client, coordinator, agents);
    } catch (error) {
      await Promise.all(agents.map((agent) => agent.stop(AGENT_GRACE_MS)));
      await coordinator.stop(COORDINATOR_GRACE_MS);
      throw lastWords(error, join(settings.data, "logs", "coordinator.out"));
    }
  }

  /** Rejects when a process can't be kept running. */
  get failed(): Promise<never> {
    return Promise.race([this.#up.failed, ...this.#agents.map((agent) => agent.failed)]);
  }

  /** Null: not running at the moment. */
  pids(): Record<"coordinator" | "agent" | "broker", number | null> {
    return { coordinator: this.#up.pid, agent: this.#agents[0]?.pid ?? null, broker: this.#broker?.pid ?? null };
  }

  /** In order: the agent drains while the coordinator still hears it, then coordinator and broker. */
  async stop(): Promise<void> {
    await Promise.all(this.#agents.map((agent) => agent.stop(AGENT_GRACE_MS)));
    await this.client[Symbol.asyncDispose]();
    await this.#up.stop(COORDINATOR_GRACE_MS);
  }

  /** SIGKILL to all three. Everything that matters is on disk already. */
  kill(): void {
    for (const agent of this.#agents) agent.kill();
    this.#up.kill();
    if (this.#broker) signalProcess(this.#broker, "SIGKILL");
  }

  get #broker(): ProcessIdentity | null {
    return Broker.safeParse(readJson(join(this.#settings.data, "nats", "broker.json"))).data ?? null;
  }
}

/** M2: stops what a killed start left behind. Throws CliError if somebody else's coordinator runs in this folder. */
export async function clearLeftovers(settings: Settings, log: EventLogger): Promise<void> {
  const agent = await stopOrphan(agentPidFile(settings.data), AGENT_GRACE_MS);
  if (agent) log("orphan.stopped", { role: agent.role, pid: agent.pid });
  const coordinator = await stopOrphan(upLock(settings.data), COORDINATOR_GRACE_MS);
  if (coordinator) log("orphan.stopped", { role: coordinator.role, pid: coordinator.pid });
  const left = lookAt(upLock(settings.data));
  if (left.kind !== "foreign") return;
  const { role, pid, since } = left.holder;
  throw new CliError(
    EXIT.badInput,
    `${settings.data} is in use by "${role}", pid ${pid}, since ${new Date(since).toISOString()}; send it targets with: ${commandLine("submit", ["TARGET"])}`,
  );
}

const Ready = z.object({ kind: z.literal("ready") });
const Trouble = z.object({ kind: z.literal("trouble"), message: z.string() });
const Broker = z.object({ pid: z.int(), start: z.string() });

/** A child that can't start has said why in its output; the number of its tries alone helps nobody. */
function lastWords(error: unknown, file: string): unknown {
  if (error instanceof CliError || !(error instanceof Error) || !existsSync(file)) return error;
  // Each try says it again.
  const said = new Set(readFileSync(file, "utf8").trim().split("\n").slice(-3));
  return new CliError(EXIT.unreachable, [error.message, ...said].join("\n"));
}
