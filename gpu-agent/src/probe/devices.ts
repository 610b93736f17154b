import type { Device } from "@vibeserve/shared";
import type { Adapters } from "../device/adapter.ts";
import type { Found, Host } from "./accelerator.ts";

/** The accelerators of this machine, all vendors at once; none where no vendor's tool is installed. Never rejects for what a tool does. */
export async function probeDevices(adapters: Adapters, host: Host): Promise<Found> {
  const found = await Promise.all([adapters.nvidia.probe(host), adapters.amd.probe(host), adapters.apple.probe(host)]);
  return {
    devices: distinct(found.flatMap((f) => f.devices)),
    problems: found.flatMap((f) => f.problems),
  };
}

/** Two devices whose names begin alike get their place behind it: an id is one device's. */
function distinct(devices: readonly Device[]): Device[] {
  const seen = new Set<string>();
  return devices.map((device, i) => {
    const id = seen.has(device.id) ? `${device.id}-${i}` : device.id;
    seen.add(id);
    return { ...device, id };
  });
}
