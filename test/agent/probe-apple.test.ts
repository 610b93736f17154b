import { Device } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { appleDevices, probeApple } from "../../gpu-agent/src/probe/apple.ts";
import { poolOf } from "../../gpu-agent/src/probe/device.ts";
import { host, missing, output, ran } from "./probe-kit.ts";
import type { ToolRun } from "../../gpu-agent/src/device/vendor-tool.ts";

const probe = (profiler: ToolRun, sysctl: ToolRun = missing): ReturnType<typeof appleDevices> => appleDevices({ profiler, sysctl }, host);

it.each([
  ["apple/m3-pro", "apple-m3-pro", "apple-m3", 18, { performance: "6", efficiency: "6" }],
  ["apple/m4-max", "apple-m4-max", "apple-m4", 48, { performance: "12", efficiency: "4" }],
])("%s, text or JSON: pool %s, instruction set %s, %i GiB that the processor shares", (name, pool, isa, gib, cores) => {
  const [device] = probe(ran(name)).devices;
  expect(Device.parse(device)).toEqual(device);
  expect(device).toMatchObject({ id: "node-1-gpu-0", kind: "apple", isa, memBytes: gib * 2 ** 30 });
  expect(device && poolOf(device)).toBe(pool);
  expect(device?.isaBits).toContain("apple-gpu");
  expect(device?.labels).toMatchObject({
    "vibeserve.dev/apple.cores.performance": cores.performance,
    "vibeserve.dev/apple.cores.efficiency": cores.efficiency,
    "vibeserve.dev/gpu.unified-memory": "true",
  });
});

it("a virtual machine's chip is another pool than the chip's", () => {
  const [device] = probe(ran("apple/m4-max-virtual")).devices;
  expect(device && poolOf(device)).toBe("apple-m4-max-virtual");
  expect(device?.labels["vibeserve.dev/apple.cores.performance"]).toBeUndefined();
});

it("cores of the GPU are in the pool where the tool tells them, and the kernel's memory is exact", () => {
  const displays = {
    SPDisplaysDataType: [{ sppci_model: "Apple M4 Max", sppci_cores: "40", spdisplays_mtlgpufamilysupport: "spdisplays_metal3" }],
  };
  const text = JSON.stringify({ ...(JSON.parse(output("apple/m4-max")) as object), ...displays });
  const sysctl: ToolRun = { kind: "ok", text: "hw.memsize: 51539607552\nkern.osproductversion: 15.5\niogpu.wired_limit_mb: 0\n" };
  const [device] = probe({ kind: "ok", text }, sysctl).devices;
  expect(device && poolOf(device)).toBe("apple-m4-max-40c");
  expect(device).toMatchObject({ memBytes: 51539607552, isaBits: ["apple-gpu", "metal3"] });
  expect(device?.labels).toMatchObject({ "vibeserve.dev/os.version": "15.5", "vibeserve.dev/apple.metal": "metal3" });
});

it("an Intel Mac has no such device; a tool that says nothing sensible is a problem; other systems are not asked", async () => {
  expect(probe({ kind: "ok", text: `{"SPHardwareDataType":[{"cpu_type":"8-Core Intel Core i9"}]}` })).toEqual({
    devices: [],
    problems: [],
  });
  for (const text of ["", "{", "{}", "Graphics/Displays:\n"])
    expect(probe({ kind: "ok", text })).toEqual({ devices: [], problems: ["system_profiler printed no hardware overview"] });
  expect(probe({ kind: "ok", text: `{"SPHardwareDataType":[{"chip_type":"Apple M9 Pro"}]}` }).problems).toEqual([
    "its memory could not be read",
  ]);
  const never = { find: () => "/bin/false", run: () => Promise.reject(new Error("asked")) };
  expect(await probeApple(never, host, "linux")).toEqual({ devices: [], problems: [] });
});
