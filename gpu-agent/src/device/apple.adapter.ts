import { probeApple } from "../probe/apple.ts";
import type { DeviceAdapter, DeviceSample } from "./adapter.ts";
import { untilIdle } from "./quiesce.ts";
import type { VendorTools } from "./vendor-tool.ts";

/**
 * macOS tells an ordinary user whether heat slows the machine (`pmset -g therm`), and nothing else: clocks, power and temperature need root's
 * `powermetrics`, which the agent does not use.
 */
export function appleAdapter(tools: VendorTools): DeviceAdapter {
  const sample = async (): Promise<DeviceSample | null> => {
    const run = await tools.run("pmset", ["-g", "therm"]);
    if (run.kind !== "ok") return null;
    const limit = speedLimit(run.text);
    const throttle = limit !== null && limit < 100 ? [`thermal, ${limit} % of its speed`] : [];
    return { clocksMHz: [], throttle, slowed: throttle, pids: null };
  };
  return {
    kind: "apple",
    probe: (host) => probeApple(tools, host),
    health: async () => {
      const seen = await sample();
      return { problems: seen?.slowed ?? [], facts: seen === null ? ["pmset gave no answer"] : [] };
    },
    quiesce: (_device, own, withinMs, signal) => untilIdle(sample, own, withinMs, signal),
    clocks: () => Promise.resolve({ nowMHz: [], maxMHz: null }),
    sample,
    // Metal's own tools are not wired.
    kernelProfiler: () => null,
  };
}

/** "CPU_Speed_Limit = 80"; null where no limit was ever recorded. */
export function speedLimit(text: string): number | null {
  const value = /^\s*CPU_Speed_Limit\s*=\s*(\d+)\s*$/m.exec(text)?.[1];
  return value === undefined ? null : Number(value);
}
