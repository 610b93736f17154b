import { Device } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { poolOf } from "../../gpu-agent/src/probe/device.ts";
import { nvidiaDevices, type NvidiaOutputs } from "../../gpu-agent/src/probe/nvidia.ts";
import { parseCsv, parseList, parseTopology } from "../../gpu-agent/src/probe/nvidia-text.ts";
import { failed, host, missing, output, ran } from "./probe-kit.ts";

const outputs = (more: Partial<NvidiaOutputs>): NvidiaOutputs => ({
  ...{ query: missing, list: missing, capabilities: missing, topology: missing },
  ...more,
});
const probe = (more: Partial<NvidiaOutputs>): ReturnType<typeof nvidiaDevices> => nvidiaDevices(outputs(more), host);
const whole = (text: string): NvidiaOutputs["query"] => ({ kind: "ok", text });

it("an H100's output becomes GFD's labels, its capability and its NVLinks; the seven GPUs that the excerpt leaves out are said to be missing", () => {
  const found = probe({ query: ran("nvidia/h100-q"), capabilities: ran("nvidia/h100-compute-cap"), topology: ran("nvidia/h100-topo") });
  expect(found.problems).toEqual(["nvidia-smi lists 1 of 8 GPUs: the others do not answer"]);
  const [device] = found.devices;
  expect(Device.parse(device)).toEqual(device);
  expect(device).toMatchObject({
    id: "node-1-gpu-b42dd28e",
    kind: "nvidia",
    name: "NVIDIA H100 80GB HBM3",
    isa: "sm_90a",
    memBytes: 81559 * 2 ** 20,
  });
  expect(device?.isaBits).toContain("sm_90");
  expect(device && poolOf(device)).toBe("nvidia-h100-80gb-hbm3");
  expect(device?.labels).toMatchObject({
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.memory": "81559",
    "nvidia.com/gpu.family": "hopper",
    "nvidia.com/gpu.compute.major": "9",
    "nvidia.com/gpu.compute.minor": "0",
    "nvidia.com/cuda.driver-version.full": "565.57.01",
    "nvidia.com/cuda.runtime-version.full": "12.7",
    "nvidia.com/mig.capable": "true",
    "nvidia.com/mig.strategy": "none",
    "vibeserve.dev/gpu.power-limit.w": "700",
    "vibeserve.dev/gpu.clock.max.mhz": "1980",
    "vibeserve.dev/gpu.link.peers": "7",
    "vibeserve.dev/gpu.link.each": "nvlink-18",
    "vibeserve.dev/gpu.minor": "0",
  });
});

it("an H200 passed through to a virtual machine: all that its tools printed there becomes one device, its processors from an underlined table", () => {
  const found = probe({
    query: ran("nvidia/h200-vm-q"),
    list: ran("nvidia/h200-vm-list"),
    capabilities: ran("nvidia/h200-vm-compute-cap"),
    topology: ran("nvidia/h200-vm-topo"),
  });
  expect(found.problems).toEqual([]);
  expect(found.devices).toHaveLength(1);
  expect(found.devices[0] && poolOf(found.devices[0])).toBe("nvidia-h200");
  expect(found.devices[0]).toMatchObject({ id: "node-1-gpu-a7de1679", isa: "sm_90a", memBytes: 143771 * 2 ** 20 });
  expect(found.devices[0]?.labels).toMatchObject({
    "nvidia.com/cuda.driver-version.full": "580.159.04",
    "nvidia.com/cuda.runtime-version.full": "13.0",
    "vibeserve.dev/gpu.compute.source": "query",
    "vibeserve.dev/gpu.bus-id": "00000000:00:06.0",
    "vibeserve.dev/gpu.power-limit.w": "700",
    "vibeserve.dev/gpu.ecc": "enabled",
  });
  expect(parseTopology(output("nvidia/h200-vm-topo"))).toEqual([{ index: 0, peers: [], cpus: "0-15" }]);
});

it.each([
  ["nvidia/h200-q", "nvidia-h200", "sm_90a", 143771, "700"],
  ["nvidia/l4-q", "nvidia-l4", "sm_89", 23034, "72"],
  ["nvidia/a100-q", "nvidia-a100-sxm4-80gb", "unknown", 81920, "500"],
])("%s: pool %s, %s where the driver can't be asked for the capability, %i MiB, limit %s W", (name, pool, isa, mib, watts) => {
  const [device] = probe({ query: ran(name) }).devices;
  expect(device && poolOf(device)).toBe(pool);
  expect(device).toMatchObject({ isa, memBytes: mib * 2 ** 20 });
  expect(device?.labels["vibeserve.dev/gpu.power-limit.w"]).toBe(watts);
  // An architecture with several capabilities (Ampere) says nothing of this one's.
  expect(device?.labels["nvidia.com/gpu.compute.major"] === undefined).toBe(isa === "unknown");
});

it("the capability that the driver names is believed, by UUID, before the architecture", () => {
  const capabilities = whole("uuid, compute_cap\nGPU-31515c3d-1414-7c2c-004a-f86a898946ac, 8.0\n");
  expect(probe({ query: ran("nvidia/a100-q"), capabilities }).devices[0]).toMatchObject({ isa: "sm_80", isaBits: ["sm_80"] });
  const other = whole("uuid, compute_cap\nGPU-00000000-1414-7c2c-004a-f86a898946ac, 8.6\n");
  expect(probe({ query: ran("nvidia/a100-q"), capabilities: other }).devices[0]?.isa).toBe("unknown");
});

it("a card whose power limit was lowered is in a pool of its own, since it is as slow as that", () => {
  const query = whole(
    output("nvidia/h200-q").replace("Current Power Limit               : 700.00 W", "Current Power Limit               : 450.00 W"),
  );
  const [device] = probe({ query }).devices;
  expect(device && poolOf(device)).toBe("nvidia-h200-450w");
});

it("slices are listed by the name of their profile, in the old and in the new form of a UUID", () => {
  const old = parseList(output("nvidia/a100-mig-list"));
  expect(old).toHaveLength(7);
  expect(old[6]).toEqual({
    gpuUuid: "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
    profile: "1g.5gb",
    index: 6,
    uuid: "MIG-GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f/14/0",
  });
  expect(parseList(output("nvidia/h100-mig-list")).map((s) => [s.profile, s.index])).toEqual([
    ["1g.10gb", 0],
    ["3g.40gb", 1],
  ]);
});

/** The A100's output as it would be with these slices on it. */
const withMig = (): string =>
  output("nvidia/a100-q")
    .replace("        Current                           : Disabled", "        Current                           : Enabled")
    .replace("GPU-31515c3d-1414-7c2c-004a-f86a898946ac", "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f");

it("where MIG is on each slice is a device with GFD's names and an id of its own; its memory is nominal where nvidia-smi does not tell it", () => {
  const found = probe({ query: whole(withMig()), list: ran("nvidia/a100-mig-list") });
  expect(found.devices.map((d) => d.id)).toEqual([7, 8, 9, 11, 12, 13, 14].map((gi) => `node-1-gpu-5c89852c-${gi}-0`));
  expect(found.devices[0]).toMatchObject({ kind: "nvidia", memBytes: Math.floor(5e9 / 2 ** 20) * 2 ** 20 });
  expect(found.devices[0] && poolOf(found.devices[0])).toBe("nvidia-a100-sxm4-80gb-mig-1g-5gb");
  expect(found.devices[0]?.labels).toMatchObject({
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.5gb",
    "nvidia.com/gpu.slices.gi": "1",
    "nvidia.com/gpu.slices.ci": "1",
    "nvidia.com/mig.strategy": "single",
  });
  expect(found.devices[0]?.labels["nvidia.com/gpu.memory"]).toBeUndefined();
  const told = whole(withMig().replace("    Accounting Mode  ", `${output("nvidia/mig-device")}    Accounting Mode  `));
  const [device] = probe({ query: told, list: ran("nvidia/a100-mig-list") }).devices;
  expect(device?.labels["nvidia.com/gpu.memory"]).toBe("9984");
  expect(device?.memBytes).toBe(9984 * 2 ** 20);
});

it("MIG without an instance offers nothing, and says so", () => {
  expect(probe({ query: whole(withMig()) })).toMatchObject({ devices: [] });
  expect(probe({ query: whole(withMig()) }).problems).toContain("GPU 00000000:68:00.0: MIG is on, and there is no instance");
});

it.each(["broken-mismatch", "broken-permission", "broken-lost"])("%s: no device, and the tool's own words as the problem", (name) => {
  const found = probe({ query: failed(`nvidia/${name}`) });
  expect(found.devices).toEqual([]);
  expect(found.problems[0]).toContain(output(`nvidia/${name}`).split("\n")[0]);
});

it("a tool that answers with words instead of GPUs is a problem and no device; no tool is neither", () => {
  expect(probe({ query: ran("nvidia/broken-none") })).toEqual({
    devices: [],
    problems: ["nvidia-smi lists no GPU: No devices were found"],
  });
  expect(probe({ query: whole("") }).problems).toEqual(["nvidia-smi lists no GPU: it printed nothing"]);
  expect(probe({})).toEqual({ devices: [], problems: [] });
});

it("ERR! is never a number: the value is left out and named, and a GPU without a memory is not offered", () => {
  const { devices, problems } = probe({ query: ran("nvidia/broken-err") });
  expect(devices.map((d) => d.id)).toEqual(["node-1-gpu-00000000"]);
  expect(devices[0]?.labels["vibeserve.dev/gpu.power-limit.w"]).toBeUndefined();
  const gpu = (n: number): string => `GPU GPU-00000000-0000-0000-0000-00000000000${n}`;
  expect(problems).toEqual([
    `${gpu(1)}: GPU Power Readings › Power Draw could not be read`,
    `${gpu(2)}: FB Memory Usage › Total could not be read`,
    `${gpu(2)}: its memory could not be read`,
    `${gpu(3)}: MIG Mode › Current could not be read`,
    `${gpu(3)}: whether it is in slices could not be read`,
  ]);
});

it("every output cut off at any line gives devices that keep to the schema, or none, and never throws", () => {
  for (const name of ["h100-q", "h200-vm-q", "a100-q", "l4-q", "broken-err"]) {
    const lines = output(`nvidia/${name}`).split("\n");
    for (let n = 0; n < lines.length; n++)
      for (const device of probe({ query: whole(lines.slice(0, n).join("\n")), list: ran("nvidia/h100-mig-list") }).devices)
        Device.parse(device);
  }
});

it("a message between the lines of a CSV is no record, and a topology without a GPU has no links", () => {
  const text = "name, clocks.sm [MHz]\nNVIDIA L4, 210 MHz\nUnable to determine the device handle for GPU1: 0000:0A:00.0: GPU is lost.\n";
  expect(parseCsv(text)).toEqual([{ name: "NVIDIA L4", "clocks.sm": "210 MHz" }]);
  expect(parseTopology("")).toEqual([]);
  const near = parseTopology(
    "\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tSYS\tPIX\t0-1,8\t0\nGPU1\tSYS\t X \tSYS\t2-3\t1\nGPU2\tSYS\tSYS\tSYS\t4,6,8,\t1\nNIC0\tPIX\tSYS\t X \n",
  );
  expect(near).toEqual([
    { index: 0, peers: [], cpus: "0-1,8" },
    { index: 1, peers: [], cpus: "2-3" },
    // A list that the tool cut off is none.
    { index: 2, peers: [], cpus: null },
  ]);
});
