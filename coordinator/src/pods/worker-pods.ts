import { randomInt } from "node:crypto";
import type { Campaign } from "../campaign/campaign.machine.ts";
import type { AgentRegistry } from "../fleet/agent-registry.ts";
import { delay } from "../process/backoff.ts";
import type { Demand } from "../schedule/model.ts";
import { podOf, type PodClass, type PodClasses } from "./pod-class.ts";
import type { PodApi } from "./pod-api.ts";
import { plan, type ClassDemand, type Failing, type PodSeen } from "./worker-pods.machine.ts";

/**
 * Pods that hold an accelerator only while there is work for it (chart: `gpu.mode: lease-pod`). Nothing is remembered that a restart would need: which pods
 * there are stands in the API server, what waits in the campaigns' logs.
 */
export interface WorkerPodsDeps {
  classes: PodClasses;
  api: PodApi;
  registry: Pick<AgentRegistry, "get" | "onChange">;
  demand: (pool: string) => Demand;
  /** Null: not all logs are read yet, and nobody can say what is wanted. */
  campaigns: () => readonly Campaign[] | null;
  /** The pod is gone: its agent's user is taken away. */
  gone: (agentId: string) => Promise<void>;
  log: (event: string, facts: Record<string, unknown>) => void;
  now: () => number;
  /** Tests shorten it. */
  lookMs?: number;
}

/** A job waits this long at most before its pod is asked for; one list a look. */
const LOOK_MS = 2_000;
/** While no job waits and no pod is known. A pod that someone else left is found by then. */
const IDLE_LOOK_MS = 60_000;

interface ClassState {
  failing: Failing | null;
  pods: PodSeen[];
}

export class WorkerPods implements AsyncDisposable {
  readonly #deps: WorkerPodsDeps;
  readonly #stop = new AbortController();
  readonly #states = new Map<string, ClassState>();
  readonly #running: Promise<void>;
  readonly #unhear: () => void;
  #listedAt = -Infinity;
  #unreachable = "";

  constructor(deps: WorkerPodsDeps) {
    this.#deps = deps;
    for (const { name } of deps.classes.classes) this.#states.set(name, { failing: null, pods: [] });
    this.#unhear = deps.registry.onChange(({ kind, agent }) => (kind === "joined" ? this.#joined(agent.agentId) : undefined));
    this.#running = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unhear();
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await this.#look();
        if (this.#unreachable !== "") this.#deps.log("worker-pods.reachable", {});
        this.#unreachable = "";
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        if (this.#unreachable !== why) this.#deps.log("worker-pods.unreachable", { why });
        this.#unreachable = why;
      }
      await delay(this.#deps.lookMs ?? LOOK_MS, this.#stop.signal);
    }
  }

  async #look(): Promise<void> {
    const { classes, api, registry, now } = this.#deps;
    const campaigns = this.#deps.campaigns();
    if (campaigns === null) return;
    const demands = classes.classes.map((podClass) => ({
      podClass,
      demand: { ...this.#deps.demand(podClass.pool), unbound: unboundFor(podClass, campaigns) },
    }));
    const wanted = demands.some(({ demand: { waiting, unbound } }) => waiting.device + waiting.builder + unbound > 0);
    const quiet = !wanted && [...this.#states.values()].every(({ pods }) => pods.length === 0);
    if (quiet && now() - this.#listedAt < IDLE_LOOK_MS) return;
    const all = (await api.list()).map((pod) => ({ ...pod, registered: registry.get(pod.name) !== null }));
    this.#listedAt = now();
    for (const { podClass, demand } of demands) {
      const own = all.filter((pod) => pod.podClass === podClass.name);
      await this.#tend(podClass, own, demand);
    }
  }

  async #tend(podClass: PodClass, pods: PodSeen[], demand: ClassDemand): Promise<void> {
    const { classes, api, log, now } = this.#deps;
    const state = this.#state(podClass.name);
    state.pods = pods;
    const cameToNothing = () => (state.failing = { count: (state.failing?.count ?? 0) + 1, at: now() });
    const { create, remove } = plan(podClass, pods, demand, state.failing, now());
    for (const { name, why, failed } of remove) {
      await api.remove(name);
      await this.#deps.gone(name);
      if (failed) cameToNothing();
      log(failed ? "worker-pod.failed" : "worker-pod.deleted", { pod: name, podClass: podClass.name, why });
    }
    for (let i = 0; i < create; i++) {
      const name = `${classes.owner}-${podClass.name}-${letters()}`;
      try {
        await api.create(podOf(classes, podClass, name));
      } catch (error) {
        // A quota, a policy, a template that is none: the next pods would meet it too.
        const why = error instanceof Error ? error.message : String(error);
        cameToNothing();
        log("worker-pod.refused", { podClass: podClass.name, why });
        return;
      }
      state.pods.push({ name, podClass: podClass.name, createdAt: now(), phase: "pending", registered: false, says: "" });
      log("worker-pod.created", { pod: name, podClass: podClass.name, pool: podClass.pool, ...demand.waiting, unbound: demand.unbound });
    }
  }

  #joined(agentId: string): void {
    for (const state of this.#states.values()) {
      const pod = state.pods.find(({ name, registered }) => name === agentId && !registered);
      if (!pod) continue;
      pod.registered = true;
      state.failing = null;
      const startMs = Math.max(0, this.#deps.now() - pod.createdAt);
      this.#deps.log("worker-pod.registered", { pod: pod.name, podClass: pod.podClass, startMs });
    }
  }

  #state(name: string): ClassState {
    const state = this.#states.get(name);
    if (!state) throw new Error(`no class ${name}`);
    return state;
  }
}

/** Campaigns that wait for a device which this class's pods would have. */
function unboundFor({ labels }: Pick<PodClass, "labels">, campaigns: readonly Campaign[]): number {
  const open = campaigns.filter((c) => c.ended === null && c.device === null && c.pausedAt === 0);
  return open.filter((c) => Object.entries(c.target.device).every(([key, value]) => labels[key] === value)).length;
}

const LETTERS = "bcdfghjklmnpqrstvwxz2456789";
const letters = (): string => Array.from({ length: 5 }, () => LETTERS[randomInt(LETTERS.length)]).join("");
