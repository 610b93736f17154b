import { mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { CampaignEvent, Target } from "@vibeserve/shared";
import { ApiClient } from "../../coordinator/src/api/client.ts";
import { loadContext } from "../../coordinator/src/cli/context.ts";
import { readTargetFile } from "../../coordinator/src/cli/target-file.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { delay } from "../../coordinator/src/process/backoff.ts";
import { Site, type Command } from "../kit/vibeserve-process.ts";
import { ROOT } from "./model.ts";

export interface BenchSite {
  /** An empty folder. */
  dir: string;
  natsServer: string;
  signal: AbortSignal;
}

/** Between looks at what campaigns have come to; the bench takes none while it times turns. */
const LOOK_MS = 250;
/** A hundred campaigns need their time. */
const LIMIT_MS = 300_000;

/**
 * `vibeserve up` as a process of its own with its real broker, on the shipped stack, roles and skills; models are asked at `url`. The agent is simulated: it
 * answers each job at once, so that what is left is the coordinator's.
 */
export class Stand implements AsyncDisposable {
  readonly #site: Site;
  readonly #signal: AbortSignal;
  #up: Command | null = null;
  #client: ApiClient | null = null;

  private constructor(site: Site, signal: AbortSignal) {
    this.#site = site;
    this.#signal = signal;
  }

  static async start({ dir, natsServer, signal }: BenchSite, url: string): Promise<Stand> {
    const env = { VIBESERVE_NATS_SERVER: natsServer, ANTHROPIC_API_KEY: "sk-bench", ANTHROPIC_BASE_URL: url, VIBESERVE_RECORD: "" };
    const stand = new Stand(new Site(dir, env, install), signal);
    try {
      await stand.up();
      await stand.#site.run("agent", "--no-setup").printed(/enrolled/);
      return stand;
    } catch (error) {
      await stand[Symbol.asyncDispose]();
      throw error;
    }
  }

  async up(): Promise<void> {
    this.#up = this.#site.run("up");
    await this.#up.printed(/coordinator ready/);
    this.#client = await ApiClient.connect(loadContext(loadSettings({ data: this.#site.data }), undefined));
  }

  /** SIGKILL to the coordinator, in the middle of whatever it does. */
  async kill(): Promise<void> {
    await this.#client?.[Symbol.asyncDispose]();
    this.#up?.child.kill("SIGKILL");
    await this.#up?.ended;
  }

  async submit(target: Target): Promise<string> {
    return (await this.#asks.submit({ target, options: { baselines: [], repeat: null } })).campaign;
  }

  /** Resolves when every campaign has ended, or `enough` says so. Throws where one is paused: something failed that is not to be measured. */
  async ended(enough: () => boolean = () => false): Promise<void> {
    const until = Date.now() + LIMIT_MS;
    while (!this.#signal.aborted) {
      if (enough()) return;
      const { campaigns } = await this.#asks.campaigns();
      const paused = campaigns.find((c) => c.state === "paused");
      if (paused) throw new Error(`campaign ${paused.campaign} is paused: ${paused.reason}`);
      if (campaigns.every((c) => c.state === "ended")) return;
      if (Date.now() > until) throw new Error(`not within ${LIMIT_MS / 1000} s: all campaigns end`);
      await delay(LOOK_MS, this.#signal);
    }
    throw new Error("stopped");
  }

  async events(campaign: string): Promise<CampaignEvent[]> {
    return this.#asks.events(campaign);
  }

  /** The most that each has had resident so far, in 10⁶ bytes (VmHWM of proc(5)); NaN where there is no /proc. */
  peakMb(): { coordinator: number; broker: number } {
    const { coordinator, broker } = this.#site.pids();
    return { coordinator: peakOf(coordinator), broker: peakOf(broker) };
  }

  get broker(): { url: string; folder: string } {
    const [url = ""] = loadContext(loadSettings({ data: this.#site.data }), undefined).servers;
    return { url, folder: join(this.#site.data, "nats") };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client?.[Symbol.asyncDispose]();
    await this.#site.stop();
    this.#site.cleanUp();
  }

  get #asks(): ApiClient {
    if (!this.#client) throw new Error("the coordinator does not run");
    return this.#client;
  }
}

/** An installation as shipped, but for its agent. */
function install(root: string): void {
  mkdirSync(root, { recursive: true });
  for (const name of ["stacks", "prompts", "docs", "targets"]) symlinkSync(join(ROOT, name), join(root, name));
}

function peakOf(pid: number | null): number {
  try {
    const kb = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(join("/proc", String(pid), "status"), "utf8"));
    return (Number(kb?.[1]) * 1024) / 1e6;
  } catch {
    return NaN;
  }
}

/** The shipped CPU target for a model to work on, whose prompts name it as number `n`, with room for all that the bench asks for. */
export function benchTarget(n = 0): Target {
  const shipped = readTargetFile(join(ROOT, "targets/cpu/chat.yaml"));
  return {
    ...shipped,
    name: `bench-${n}`,
    model: { ...shipped.model, name: `bench-${n}` },
    agent: "anthropic",
    bindings: "none",
    budget: { wallS: 1e6, experiments: 1_000, usd: 1e6 },
    baselines: [],
  };
}
