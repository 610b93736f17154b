import { readdir, readFile } from "node:fs/promises";
import { cpuList } from "../bench/cpu-clock.ts";
import { QUIET_LIMITS } from "../bench/quiet.ts";
import { untilQuiet } from "../bench/until-quiet.ts";
import { NOTHING } from "../probe/accelerator.ts";
import type { DeviceAdapter, DeviceSample } from "./adapter.ts";

/** Linux's files, under `root` where a test has its own. A virtual machine has few of them: then a sample says little, and nothing is wrong. */
export function cpuAdapter(root = ""): DeviceAdapter {
  /** Throttle counts at the last sample: only a rise says that it happened now. */
  const counted = new Map<string, number>();
  const clocks = async (cpus: readonly number[]): Promise<number[]> => {
    const scaled = await Promise.all(cpus.map((cpu) => number(`${root}/sys/devices/system/cpu/cpu${cpu}/cpufreq/scaling_cur_freq`)));
    const known = scaled.filter((kHz) => kHz !== null).map((kHz) => kHz / 1000);
    return known.length > 0 ? known : clocksOfCpuinfo((await text(`${root}/proc/cpuinfo`)) ?? "", cpus);
  };
  const throttled = async (cpus: readonly number[]): Promise<boolean> => {
    let rose = false;
    for (const cpu of cpus)
      for (const name of ["core_throttle_count", "package_throttle_count"]) {
        const file = `${root}/sys/devices/system/cpu/cpu${cpu}/thermal_throttle/${name}`;
        const count = await number(file);
        if (count === null) continue;
        rose ||= count > (counted.get(file) ?? count);
        counted.set(file, count);
      }
    return rose;
  };
  return {
    kind: "cpu",
    // The probe of the processors is cpuDevice(); it needs the compiler.
    probe: () => Promise.resolve(NOTHING),
    health: async () => {
      const hot = await temperature(root);
      return { problems: [], facts: hot === null ? [] : [`temperature ${hot} °C`] };
    },
    quiesce: (device, _own, withinMs, signal) => untilQuiet(cpuList(device.cpus), QUIET_LIMITS, withinMs, signal),
    clocks: async (device) => {
      const cpus = cpuList(device.cpus);
      const kHz = await number(`${root}/sys/devices/system/cpu/cpu${cpus[0] ?? 0}/cpufreq/cpuinfo_max_freq`);
      return { nowMHz: await clocks(cpus), maxMHz: kHz === null ? null : kHz / 1000 };
    },
    sample: async (device): Promise<DeviceSample> => {
      const cpus = cpuList(device.cpus);
      const [clocksMHz, temperatureC, slow] = await Promise.all([clocks(cpus), temperature(root), throttled(cpus)]);
      const throttle = slow ? ["thermal"] : [];
      // Who else runs here is told more exactly by the processors' own time, see bench/quiet.ts.
      return { clocksMHz, ...(temperatureC === null ? {} : { temperatureC }), throttle, slowed: throttle, pids: null };
    },
    kernelProfiler: () => null,
  };
}

/** "cpu MHz" of these processors; on a virtual machine it is the nominal one. */
export function clocksOfCpuinfo(cpuinfo: string, cpus: readonly number[]): number[] {
  return cpuinfo.split("\n\n").flatMap((block) => {
    const cpu = /^processor\s*:\s*(\d+)$/m.exec(block)?.[1];
    const mhz = Number(/^cpu MHz\s*:\s*([\d.]+)$/m.exec(block)?.[1] ?? NaN);
    return cpu !== undefined && cpus.includes(Number(cpu)) && mhz > 0 ? [mhz] : [];
  });
}

/** The hottest zone that is a processor's. */
async function temperature(root: string): Promise<number | null> {
  const zones = await readdir(`${root}/sys/class/thermal`).catch(() => []);
  const found = await Promise.all(
    zones
      .filter((zone) => zone.startsWith("thermal_zone"))
      .map(async (zone) => {
        const type = (await text(`${root}/sys/class/thermal/${zone}/type`)) ?? "";
        return /x86_pkg_temp|cpu|soc|acpitz/i.test(type) ? number(`${root}/sys/class/thermal/${zone}/temp`) : null;
      }),
  );
  const known = found.filter((milli) => milli !== null && milli > 0).map((milli) => Number(milli) / 1000);
  return known.length === 0 ? null : Math.max(...known);
}

const text = (path: string): Promise<string | null> => readFile(path, "utf8").catch(() => null);
const number = async (path: string): Promise<number | null> => {
  const value = (await text(path))?.trim();
  return value !== undefined && /^\d+$/.test(value) ? Number(value) : null;
};
