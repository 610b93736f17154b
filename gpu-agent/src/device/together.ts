import type { Device } from "@vibeserve/shared";
import { cpuList } from "../bench/cpu-clock.ts";

/** Several devices as a job that needs one sees them: the first, with the processors that are near to any of them. */
export function leadOf(devices: readonly [Device, ...Device[]]): Device {
  const [first] = devices;
  const cpus = [...new Set(devices.flatMap((device) => cpuList(device.cpus)))].sort((a, b) => a - b);
  return devices.every(({ cpus: own }) => own === first.cpus) ? first : { ...first, cpus: cpus.join(","), cores: cpus.length };
}
