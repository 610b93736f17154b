import { expect, it } from "vitest";
import { devicePool, type Device, type JobSpec } from "@vibeserve/shared";
import { acceleratorDevice, type Accelerator } from "../../gpu-agent/src/probe/accelerator.ts";
import { offeredIn, poolsOf } from "../../gpu-agent/src/probe/device.ts";
import type { Topology } from "../../gpu-agent/src/probe/cpu-topology.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Alone } from "../../gpu-agent/src/worker/alone.ts";
import type { JobContext, JobOf } from "../../gpu-agent/src/worker/job-context.ts";

const topology: Topology = { model: "cpu", cpus: [0, 1], memBytes: 1, caches: [] };
const gpu = (agentId: string, uuid: string, pool: string[], more: Partial<Accelerator> = {}): Device =>
  acceleratorDevice(
    {
      ...{ kind: "nvidia", name: "a GPU", isa: "sm_90a", isaBits: ["sm_90a"], memBytes: 1, uuid, index: 0, pool },
      labels: { "vibeserve.dev/gpu.uuid": uuid },
      ...more,
    },
    { agentId, topology },
  );
const H100 = "GPU-b42dd28e-ffdd-43a1-8a11-0123456789ab";
const L4 = "GPU-11112222-ffdd-43a1-8a11-0123456789ab";
const kinds = [gpu("a", H100, ["nvidia", "h100"]), gpu("a", L4, ["nvidia", "l4"]), gpu("a", L4.replace("1111", "3333"), ["nvidia", "l4"])];
const slices = ["1g.10gb", "3g.40gb"].map((profile, i) =>
  gpu("a", `MIG-0000000${i}-ffdd-43a1-8a11-0123456789ab`, ["nvidia h100 mig", profile]),
);

it("each kind of device has its own pool, slices of different sizes too; a name given is the first kind's", () => {
  expect(poolsOf(kinds)).toEqual(["nvidia-h100", "nvidia-l4"]);
  expect(kinds.map((d) => devicePool({ pools: poolsOf(kinds) }, d))).toEqual(["nvidia-h100", "nvidia-l4", "nvidia-l4"]);
  expect(poolsOf(slices)).toEqual(["nvidia-h100-mig-1g-10gb", "nvidia-h100-mig-3g-40gb"]);
  expect(poolsOf(kinds, "mine")).toEqual(["mine", "nvidia-l4"]);
  expect(kinds.map((d) => devicePool({ pools: ["mine", "nvidia-l4"] }, d))).toEqual(["mine", "nvidia-l4", "nvidia-l4"]);
  expect(() => poolsOf(kinds, "nvidia-l4")).toThrow(/--pool nvidia-l4: that is the pool of another kind of device here/);
});

it("an agent that was let into one pool offers that kind only; an older one, with all its devices in one pool, is taken at its word", () => {
  expect(offeredIn(kinds, ["nvidia-h100", "nvidia-l4"])).toEqual(kinds);
  expect(offeredIn(kinds, ["fast"])).toEqual(kinds.slice(0, 1));
  expect(kinds.map((d) => devicePool({ pools: ["nvidia-h100"] }, d))).toEqual(["nvidia-h100", "nvidia-h100", "nvidia-h100"]);
});

it.runIf(process.platform === "linux")(
  "agents that know one GPU by other ids, each on a machine of its own for all it knows, measure on it one after the other; in containers by a folder that they share",
  async () => {
    using dir = tempDir("locks");
    const name = `test-${process.pid}-gpu`;
    const agents = (deviceLock: (id: string) => string, folder: string | null) =>
      ["a", "b"].map((id) => new Alone(`${name}-machine-${id}`, deviceLock(id), id, folder)) as [Alone, Alone];
    await oneByOne(
      agents(() => name, null),
      /held by bench of campaign c \(agent a\)/,
    );
    // Other network namespaces: no name is common.
    await oneByOne(
      agents((id) => `${name}-${id}`, dir.path),
      /held by an agent in another container/,
    );
  },
);

it.runIf(process.platform === "linux")(
  "parts of one GPU by which a job has it twice are one lock, which it does not wait for itself",
  async () => {
    const name = `test-${process.pid}-parts`;
    const alone = new Alone(`${name}-machine`, name, "a");
    const parts = [gpu("a", H100, ["h100"]), gpu("b", H100, ["h100"])];
    const waits = (phase: string): never => {
      throw new Error(phase);
    };
    expect(await alone.job(job, contextOn(parts, waits), async () => "done")).toBe("done");
  },
);

const job = { spec: { kind: "bench" }, campaign: "c", deadlineMs: 60_000 } as unknown as JobOf<JobSpec>;
const contextOn = (devices: Device[], progress: (phase: string) => void): JobContext =>
  ({ device: devices[0], devices, signal: new AbortController().signal, log: () => undefined, progress }) as unknown as JobContext;

async function oneByOne([one, two]: [Alone, Alone], waiting: RegExp): Promise<void> {
  const told: string[] = [];
  const context = (...devices: Device[]): JobContext => contextOn(devices, (phase) => void told.push(phase));
  const other = Promise.withResolvers<undefined>();
  const order: string[] = [];
  const first = one.job(job, context(gpu("a", H100, ["h100"])), async () => {
    order.push("a begins");
    const second = two.job(job, context(gpu("b", H100, ["h100"])), async () => order.push("b begins"));
    // Another card is free at once.
    await two.job(job, context(gpu("b", L4, ["l4"])), async () => order.push("b on another"));
    await expect.poll(() => told.at(-1)).toMatch(waiting);
    order.push("a ends");
    void second.then(() => other.resolve(undefined));
  });
  await first;
  await other.promise;
  expect(order).toEqual(["a begins", "b on another", "a ends", "b begins"]);
}
