import {
  builderDevice,
  buildTargetOf,
  canBuildFor,
  devicePool,
  type AgentInfo,
  type BuildTarget,
  type Device,
  type Job,
} from "@vibeserve/shared";

/** Where a job may go, as the scheduler asks. */
export interface Eligible {
  /** The preferred one first. */
  readonly pools: readonly string[];
  /** Builders that alone may take it; absent: all of these pools. */
  readonly only?: readonly string[];
}

/** An agent that only builds leaves its processors to builds; a measuring one's are better spent on measuring. */
const buildsFor = ({ devices, builder }: AgentInfo, target: BuildTarget): boolean =>
  devices.length === 0 && builder !== undefined && canBuildFor(builder, target);

const serves = (agent: AgentInfo, pool: string): boolean => agent.devices.some((device) => devicePool(agent, device) === pool);

/**
 * What a build for this device is to be compiled for, where more than one agent may build it or need it; undefined: its own agent builds what it serves, and
 * nothing is stored.
 */
export function sharedTarget(agent: AgentInfo, device: Device, agents: readonly AgentInfo[]): BuildTarget | undefined {
  const host = agent.devices.find((d) => d.kind === "cpu") ?? device;
  const target = device.simulated ? null : buildTargetOf(device, host);
  if (target === null) return undefined;
  const alike = agents.filter((a) => serves(a, devicePool(agent, device)));
  return alike.length > 1 || agents.some((a) => buildsFor(a, target)) ? target : undefined;
}

/**
 * A build goes to builders that measure nothing where some can do it, else to those of agents with a device of its pool; all else to that pool. A builder is in its
 * agent's first pool, whatever pools its devices are in.
 */
export function eligible({ pool, spec }: Job, agents: readonly AgentInfo[]): Eligible {
  if (spec.kind !== "build") return { pools: [pool] };
  const key = JSON.stringify([pool, spec.for ?? null, spec.provenance]);
  const known = KNOWN.get(agents) ?? new Map<string, Eligible>();
  KNOWN.set(agents, known);
  const found = known.get(key) ?? builders(pool, spec, agents);
  known.set(key, found);
  return found;
}

/** By the registry's list, which is another one whenever an agent is: a thousand agents are not looked through for each build. */
const KNOWN = new WeakMap<readonly AgentInfo[], Map<string, Eligible>>();

function builders(pool: string, spec: Extract<Job["spec"], { kind: "build" }>, agents: readonly AgentInfo[]): Eligible {
  const own = agents.filter((a) => serves(a, pool));
  const { for: target, provenance } = spec;
  if (target === undefined && own.every((a) => a.pools[0] === pool)) return { pools: [pool] };
  // Where there is no sandbox, what a model wrote is not compiled.
  const farm = target ? agents.filter((a) => buildsFor(a, target) && (provenance === "shipped" || a.sandbox !== "none")) : [];
  const pools = [...new Set([...farm, ...own].flatMap((a) => a.pools.slice(0, 1)))];
  if (own.length === 0) pools.push(pool);
  const members = agents.filter((a) => pools.includes(a.pools[0] ?? ""));
  const able = members.filter((a) => farm.includes(a) || own.includes(a));
  return able.length === members.length ? { pools } : { pools, only: able.map((a) => builderDevice(a.agentId)) };
}
