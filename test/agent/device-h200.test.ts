import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Device } from "@vibeserve/shared";
import { afterAll, beforeEach, expect, it } from "vitest";
import { deviceAdapters } from "../../gpu-agent/src/device/adapter.ts";
import { vendorTools } from "../../gpu-agent/src/device/vendor-tool.ts";
import { probeDevices } from "../../gpu-agent/src/probe/devices.ts";
import { probeToolchains } from "../../gpu-agent/src/probe/toolchains.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { FIXTURES, host, output } from "./probe-kit.ts";

const dir = tempDir("h200-tools");
afterAll(() => dir[Symbol.dispose]());
let folder: string;
let n = 0;
beforeEach(() => mkdirSync((folder = join(dir.path, String(n++)))));

const adapters = (): ReturnType<typeof deviceAdapters> => deviceAdapters(vendorTools(folder));

async function h200(): Promise<Device> {
  const [device] = (await probeDevices(adapters(), host)).devices;
  if (!device) throw new Error("the fake was not found");
  return device;
}

/** A vendor's tool as a process that prints what it printed on the one H200 that was seen. */
function fake(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
}

const printed = (name: string): string => `cat ${join(FIXTURES, `nvidia/h200-vm-${name}.txt`)}`;
const real = (): void =>
  fake(
    "nvidia-smi",
    `case "$*" in
*throttle_reasons*) ${printed("throttle")} ;;
*event_reasons*) ${printed("event")} ;;
*compute-apps*) ${printed("apps")} ;;
*compute_cap*) ${printed("compute-cap")} ;;
-q*) ${printed("q")} ;;
-L) ${printed("list")} ;;
*) ${printed("topo")} ;;
esac`,
  );

it("nobody computes on it, it is idle, and nothing speaks against it: not its log, in which it cleared an interrupt at its start", async () => {
  real();
  fake("dmesg", printed("dmesg"));
  const device = await h200();
  expect(device).toMatchObject({ id: "node-1-gpu-a7de1679", cpus: "0,1,2,3" });
  expect(await adapters().nvidia.sample(device)).toEqual({
    ...{ clocksMHz: [345], temperatureC: 35, powerW: 80.62, memoryMiB: 0 },
    ...{ throttle: [], slowed: [], pids: [] },
  });
  const { problems, facts, gone } = await adapters().nvidia.health(device);
  expect([problems, gone]).toEqual([[], undefined]);
  expect(facts).toEqual(expect.arrayContaining(["SRAM Uncorrectable SEC-DED: 0", "DRAM Uncorrectable: 0", "temperature 35 C"]));
});

it("a reason for throttling is seen although the driver answers the old name of its field with the new one", async () => {
  real();
  const device = await h200();
  writeFileSync(join(folder, "hot.txt"), output("nvidia/h200-vm-throttle").replace("0x0000000000000001", "0x0000000000000044"));
  fake("nvidia-smi", `case "$*" in *throttle_reasons*) cat ${folder}/hot.txt ;; *) ${printed("apps")} ;; esac`);
  expect(await adapters().nvidia.sample(device)).toMatchObject({
    throttle: ["power limit", "thermal, by hardware"],
    slowed: ["thermal, by hardware"],
  });
});

it("what newer drivers say of memory that can't be repaired speaks against it", async () => {
  real();
  const device = await h200();
  writeFileSync(join(folder, "q.txt"), output("nvidia/h200-vm-q").replace(/(Unrepairable Memory +: )No/, "$1Yes"));
  fake("nvidia-smi", `cat ${folder}/q.txt`);
  fake("dmesg", "true");
  expect((await adapters().nvidia.health(device)).problems).toEqual(["memory that can't be repaired"]);
});

it("its compiler is named by the version that it printed", async () => {
  fake("nvcc", printed("nvcc"));
  expect(await probeToolchains(vendorTools(folder, "/nonexistent"))).toEqual(
    expect.arrayContaining([expect.objectContaining({ name: "nvcc", version: "13.0.88" })]),
  );
});
