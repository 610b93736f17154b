import type { Device } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { guardDevices, troubleOf } from "../../gpu-agent/src/device/guard.ts";
import { leadOf } from "../../gpu-agent/src/device/together.ts";
import type { Adapters, DeviceHealth, DeviceSample } from "../../gpu-agent/src/device/adapter.ts";
import { aloneOn, Machine } from "../../gpu-agent/src/worker/machine.ts";

const card = (id: string, cpus: string): Device => ({
  ...{ id, kind: "nvidia", name: "", isa: "", isaBits: [], cores: 2, cpus, memBytes: 1, labels: {}, simulated: false },
});

it("what wants several machines works when all are free, and whoever wants one of them waits for it", async () => {
  const [a, b] = [new Machine(), new Machine()];
  const order: string[] = [];
  const release = Promise.withResolvers<null>();
  const first = b.alone(async () => {
    await release.promise;
    order.push("single on b");
  });
  const gang = aloneOn([a, b], async () => void order.push("both"));
  const after = a.alone(async () => void order.push("single on a"));
  release.resolve(null);
  await Promise.all([first, gang, after]);
  expect(order).toEqual(["single on b", "both", "single on a"]);
});

it("several devices have the processors near to any of them; of alike ones the first stands for all", () => {
  const [near, far] = [card("d0", "0,1"), card("d1", "2,3")];
  expect(leadOf([near, far])).toMatchObject({ id: "d0", cpus: "0,1,2,3", cores: 4 });
  expect(leadOf([near, card("d1", "0,1")])).toBe(near);
});

it("a device that does not answer ends the job only where it is gone, and by its own name", async () => {
  const sample: DeviceSample = { clocksMHz: [], throttle: [], slowed: [], pids: null };
  const state = { answers: true, health: { problems: [], facts: [] } as DeviceHealth };
  let looked = 0;
  const adapter = {
    sample: async ({ id }: Device) => (id === "d0" || state.answers ? sample : (looked++, null)),
    health: async ({ id }: Device) => (id === "d0" ? { problems: [], facts: [] } : state.health),
  };
  using guard = guardDevices({ nvidia: adapter } as unknown as Adapters, [card("d0", "0"), card("d1", "0")], 5);
  state.answers = false;
  await expect.poll(() => looked).toBeGreaterThan(2);
  expect(guard.signal.aborted).toBe(false);
  state.health = { problems: ["GPU is lost"], facts: [], gone: true };
  await expect.poll(() => guard.signal.aborted).toBe(true);
  expect(guard.signal.reason).toMatchObject({ attribution: "device", code: "device-lost", device: "d1", message: "d1: GPU is lost" });
  // What is asked afterwards may get no answer any more: who was gone stays known.
  state.health = { problems: ["no answer"], facts: [] };
  expect(guard.found?.gone.map((d) => d.id)).toEqual(["d1"]);
});

it("trouble is laid to the device that it is said of, and to none where it is said of all in the same words", async () => {
  const of = async (said: Record<string, DeviceHealth>) => {
    const adapter = { health: async ({ id }: Device) => said[id]! };
    const { error, gone } = (await troubleOf({ nvidia: adapter } as unknown as Adapters, [card("d0", "0"), card("d1", "0")]))!;
    return { code: error.code, device: error.device, message: error.message, gone: gone.map((d) => d.id) };
  };
  const silent = { problems: ["nvidia-smi gave no answer in 10 s"], facts: [] };
  const well = { problems: [], facts: [] };
  const unhealthy = { code: "device-unhealthy", gone: [] };
  expect(await of({ d0: silent, d1: silent })).toEqual({
    ...{ ...unhealthy, device: undefined, message: "d0, d1: nvidia-smi gave no answer in 10 s" },
  });
  expect(await of({ d0: well, d1: silent })).toMatchObject({ ...unhealthy, device: "d1" });
  expect(await of({ d0: { problems: ["Xid 79"], facts: [] }, d1: silent })).toMatchObject({ ...unhealthy, device: "d0" });
  const lost = ["d1 is lost"];
  expect(await of({ d0: { problems: lost, facts: [], gone: false }, d1: { problems: lost, facts: [], gone: true } })).toMatchObject({
    ...{ code: "device-lost", device: "d1", gone: ["d1"] },
  });
  expect(await of({ d0: silent, d1: { problems: ["GPU is lost"], facts: [], gone: true } })).toMatchObject({
    ...{ code: "device-lost", device: "d1", gone: ["d1"] },
  });
});
