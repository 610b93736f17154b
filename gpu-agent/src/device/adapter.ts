import type { Device } from "@vibeserve/shared";
import type { Found, Host } from "../probe/accelerator.ts";
import { amdAdapter } from "./amd.adapter.ts";
import { appleAdapter } from "./apple.adapter.ts";
import { cpuAdapter } from "./cpu.adapter.ts";
import { nvidiaAdapter } from "./nvidia.adapter.ts";
import type { VendorTools } from "./vendor-tool.ts";

/** What a device did at one moment. What its vendor's tool does not tell is absent, never a guess. */
export interface DeviceSample {
  /** Of each of its clock domains that compute. */
  readonly clocksMHz: readonly number[];
  readonly temperatureC?: number;
  readonly powerW?: number;
  readonly memoryMiB?: number;
  /** Every reason for which it ran slower than it could, its power limit included. */
  readonly throttle: readonly string[];
  /** Those of them that make a run worthless: heat, and hardware that protects itself. A power limit is the device's own, for both sides of a comparison. */
  readonly slowed: readonly string[];
  /** Who computes on it; null: it can't be told. */
  readonly pids: readonly number[] | null;
}

export interface DeviceHealth {
  /** Why it should not be measured on; empty: nothing is known against it. */
  readonly problems: readonly string[];
  /** What was found, for people: "Xid 31 at 1234 s", "SRAM Uncorrectable: 0". */
  readonly facts: readonly string[];
  /** Its vendor's tool does not list it any more: it fell off the bus. */
  readonly gone?: boolean;
}

export interface DeviceClocks {
  readonly nowMHz: readonly number[];
  /** Null where the tool does not tell it. */
  readonly maxMHz: number | null;
}

/** All that differs between vendors. Nothing here throws for what a tool does or says. */
export interface DeviceAdapter {
  readonly kind: Device["kind"];
  /** The devices of this kind that this machine has. */
  probe(host: Host): Promise<Found>;
  health(device: Device): Promise<DeviceHealth>;
  /** Waits until nobody but `own` computes on it and it is not slowed, for `withinMs` at most: the next run is judged by itself. Throws the signal's reason. */
  quiesce(device: Device, own: () => ReadonlySet<number>, withinMs: number, signal: AbortSignal): Promise<void>;
  clocks(device: Device): Promise<DeviceClocks>;
  /** Null: the tool did not answer. */
  sample(device: Device): Promise<DeviceSample | null>;
  /** Path of the profiler of its kernels, for jobs of kind `profile`; null: none is installed, or none is wired for its vendor. */
  kernelProfiler(): string | null;
}

export type Adapters = Readonly<Record<Device["kind"], DeviceAdapter>>;

export const deviceAdapters = (tools: VendorTools): Adapters => ({
  cpu: cpuAdapter(),
  nvidia: nvidiaAdapter(tools),
  amd: amdAdapter(tools),
  apple: appleAdapter(tools),
});
