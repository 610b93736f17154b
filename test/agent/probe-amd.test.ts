import { Device } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { amdDevices, parseRocmSmi, type AmdOutputs } from "../../gpu-agent/src/probe/amd.ts";
import { poolOf } from "../../gpu-agent/src/probe/device.ts";
import { host, missing, output, ran } from "./probe-kit.ts";

const probe = (more: Partial<AmdOutputs>): ReturnType<typeof amdDevices> =>
  amdDevices({ rocminfo: missing, amdSmi: missing, topology: missing, rocmSmi: missing, rocm: null, ...more }, host);

it("an MI300X's rocminfo becomes the labeller's labels; driver and power cap come from rocm-smi where there is no amd-smi", () => {
  const found = probe({ rocminfo: ran("amd/mi300x-rocminfo"), rocmSmi: ran("amd/mi300x-rocm-smi"), rocm: "6.2.0-66" });
  expect(found.problems).toEqual([]);
  const [device] = found.devices;
  expect(Device.parse(device)).toEqual(device);
  expect(device).toMatchObject({
    id: "node-1-gpu-8d1457e2",
    kind: "amd",
    name: "AMD Instinct MI300X",
    isa: "gfx942",
    memBytes: 201310208 * 1024,
  });
  expect(device?.isaBits).toEqual(["gfx942", "sramecc+", "xnack-"]);
  expect(device && poolOf(device)).toBe("amd-mi300x");
  expect(device?.labels).toMatchObject({
    "amd.com/gpu.family": "AI",
    "amd.com/gpu.device-id": "74a1",
    "amd.com/gpu.product-name": "AMD_Instinct_MI300X",
    "amd.com/gpu.vram": "192G",
    "amd.com/gpu.cu-count": "304",
    "amd.com/gpu.simd-count": "1216",
    "amd.com/gpu.driver-version": "6.7.0",
    "vibeserve.dev/gpu.bus-id": "0000:26:00.0",
    "vibeserve.dev/gpu.power-limit.w": "750",
    "vibeserve.dev/gpu.clock.max.mhz": "2100",
    "vibeserve.dev/rocm": "6.2.0-66",
  });
  expect(device?.labels["amd.com/compute-memory-partition"]).toBeUndefined();
});

it("an MI300A is an accelerator that shares its memory with the processor, and its sample's own gfx940 is not corrected", () => {
  const [device] = probe({ rocminfo: ran("amd/mi300a-rocminfo") }).devices;
  expect(device).toMatchObject({ isa: "gfx940", name: "AMD Instinct MI300A", memBytes: 98381172 * 1024 });
  expect(device && poolOf(device)).toBe("amd-mi300a");
  expect(device?.labels).toMatchObject({ "vibeserve.dev/gpu.unified-memory": "true", "amd.com/gpu.cu-count": "228" });
});

it("amd-smi's driver, cap and partition are taken for the GPU on the same bus; another partition is another pool", () => {
  const one = probe({ rocminfo: ran("amd/mi300x-rocminfo"), amdSmi: ran("amd/mi300x-amd-smi"), rocmSmi: ran("amd/mi300x-rocm-smi") })
    .devices[0];
  expect(one?.labels).toMatchObject({
    "amd.com/gpu.driver-version": "6.10.5",
    "amd.com/compute-memory-partition": "cpx_nps4",
    "vibeserve.dev/gpu.power-limit.w": "700",
  });
  expect(one && poolOf(one)).toBe("amd-mi300x-cpx-nps4");
  const elsewhere = output("amd/mi300x-amd-smi").replace("0000:26:00.0", "0000:46:00.0");
  const other = probe({ rocminfo: ran("amd/mi300x-rocminfo"), amdSmi: { kind: "ok", text: `{"gpu_data": ${elsewhere}}` } }).devices[0];
  expect(other?.labels["amd.com/gpu.driver-version"]).toBeUndefined();
});

it("XGMI peers are those that amd-smi's topology names", () => {
  const links = [0, 1, 2].map((gpu) => ({ gpu, bdf: `0000:${["26", "46", "65"][gpu]}:00.0`, link_type: gpu === 0 ? "SELF" : "XGMI" }));
  const text = JSON.stringify({ gpu_data: [{ gpu: 0, bdf: "0000:26:00.0", links }] });
  const [device] = probe({ rocminfo: ran("amd/mi300x-rocminfo"), topology: { kind: "ok", text } }).devices;
  expect(device?.labels).toMatchObject({ "vibeserve.dev/gpu.link.peers": "2", "vibeserve.dev/gpu.link.each": "xgmi" });
});

it("a user without the right to open /dev/kfd is told so; a tool that failed is named, and the rest is still known", () => {
  const denied = probe({ rocminfo: ran("amd/no-permission") });
  expect(denied.devices).toEqual([]);
  expect(denied.problems[0]).toMatch(/Unable to open \/dev\/kfd read-write: Permission denied .* not member of "render"/);
  const why = "amd-smi gave no answer in 10 s";
  const partly = probe({ rocminfo: ran("amd/mi300x-rocminfo"), amdSmi: { kind: "failed", why } });
  expect([partly.devices.length, partly.problems]).toEqual([1, [why]]);
  expect(probe({})).toEqual({ devices: [], problems: [] });
});

it("what can't be read is left out or named: no name, no size, no JSON", () => {
  const text = output("amd/mi300x-rocminfo");
  const nameless = probe({ rocminfo: { kind: "ok", text: text.replace(/Marketing Name:.*/, "Marketing Name:") } }).devices[0];
  expect(nameless && poolOf(nameless)).toBe("amd-gfx942-74a1");
  const sizeless = probe({ rocminfo: { kind: "ok", text: text.replaceAll(/Size: .*KB/g, "Size: ERR!") } });
  expect(sizeless).toEqual({ devices: [], problems: ["GPU 0000:26:00.0: its memory could not be read"] });
  expect(
    probe({ rocminfo: ran("amd/mi300x-rocminfo"), amdSmi: { kind: "ok", text: "Traceback (most recent call last):" } }).devices,
  ).toHaveLength(1);
  const lines = text.split("\n");
  for (let n = 0; n < lines.length; n++)
    for (const device of probe({ rocminfo: { kind: "ok", text: lines.slice(0, n).join("\n") } }).devices) Device.parse(device);
});

it("rocm-smi's lines are one record a GPU", () => {
  const records = parseRocmSmi(output("amd/mi300x-rocm-smi"));
  expect(records.map((r) => r["PCI Bus"])).toEqual(["26", "46", "65", "85"].map((bus) => `0000:${bus}:00.0`));
  expect(records[3]).toMatchObject({
    "Driver version": "6.7.0",
    "Unique ID": "0xeff71edc82169115",
    "Max Graphics Package Power (W)": "750.0",
  });
});
