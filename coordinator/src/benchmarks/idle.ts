import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { LocalMachine } from "../cli/local-machine.ts";
import type { Settings } from "../config.ts";
import { delay } from "../process/backoff.ts";
import { eventLogger, openLog } from "../process/log-file.ts";
import { within } from "./lane.ts";
import { rssMb } from "./rss.ts";

export type Idle =
  /** Of the three processes together: CPU time in percent of one core, and the largest sum of resident memory seen, in 10⁶ bytes. */
  { kind: "measured"; cpuPercent: number; rssMb: number } | { kind: "missing"; why: string };

/** What starting leaves behind is not what waiting costs. An agent gives its heap back once, after 10 s without a job: 50 ms of a processor. */
const SETTLE_MS = 15_000;
const LOOK_MS = 1_000;
/** /proc counts in these on every Linux, whatever the kernel's own clock. */
const TICKS_PER_S = 100;

/** Coordinator, agent and broker as `npm start` runs them, registered and waiting, with no campaign. */
export async function measureIdle(settings: Settings, seconds: number, signal: AbortSignal, log: NodeJS.WritableStream): Promise<Idle> {
  if (!existsSync("/proc/self/stat")) return { kind: "missing", why: `${process.platform} has no /proc to read processes from` };
  const machine = await LocalMachine.start(
    {
      ...{ settings, natsServer: settings.natsServer },
      agent: { assets: null, unsafeNoSandbox: false },
      record: false,
      trouble: (message) => void log.write(`${message}\n`),
      log: eventLogger(openLog(settings.data, "bench", settings.logLevel)),
    },
    signal,
  );
  try {
    await within(registered(machine, signal), "the agent registers", signal);
    log.write(`idle: coordinator, agent and broker are watched for ${seconds} s\n`);
    await delay(SETTLE_MS, signal);
    const from = performance.now();
    const before = look(machine);
    let [after, mostMb] = [before, 0];
    for (let i = 0; i < (seconds * 1_000) / LOOK_MS; i++) {
      await delay(LOOK_MS, signal);
      if (signal.aborted) throw new Error("stopped");
      after = look(machine);
      mostMb = Math.max(mostMb, sum(after, "rssMb"));
    }
    const percent = (cpuS: number) => (100 * cpuS * 1_000) / (performance.now() - from);
    for (const [i, p] of after.entries()) {
      const cpu = percent(p.cpuS - (before[i]?.cpuS ?? 0)).toFixed(2);
      log.write(`idle: ${p.name} (pid ${p.pid}): ${cpu} % of a core, ${p.rssMb.toFixed(1)} MB\n`);
    }
    return { kind: "measured", cpuPercent: percent(sum(after, "cpuS") - sum(before, "cpuS")), rssMb: mostMb };
  } finally {
    await machine.stop();
  }
}

async function registered({ client }: LocalMachine, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const { agents } = await client.status();
    if (agents.length > 0) return;
    await delay(100, signal);
  }
}

interface Usage {
  name: string;
  pid: number;
  cpuS: number;
  rssMb: number;
}

const sum = (all: readonly Usage[], what: "cpuS" | "rssMb") => all.reduce((total, p) => total + p[what], 0);

function look(machine: LocalMachine): Usage[] {
  return Object.entries(machine.pids()).map(([name, pid]) => {
    if (pid === null) throw new Error(`the ${name} is gone`);
    const stat = readFileSync(join("/proc", String(pid), "stat"), "utf8");
    // After the command's name, which may hold anything: state is field 3 of proc(5), utime and stime are 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { name, pid, cpuS: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S, rssMb: rssMb(pid) };
  });
}
