import { expect, it } from "vitest";
import { cpuList, parseProcStat, readCpu } from "../../gpu-agent/src/bench/cpu-clock.ts";
import { QUIET_LIMITS, quietOf, refusalOf } from "../../gpu-agent/src/bench/quiet.ts";

const stat = (cpu0: string, cpu1: string, cpu2: string): string =>
  `cpu  1 1 1 1 1 1 1 1 1 1\ncpu0 ${cpu0}\ncpu1 ${cpu1}\ncpu2 ${cpu2}\nintr 5\n`;
const self = { loopDelayP99Ms: 1, loopDelayMaxMs: 2, slipP50Ms: 0, slipP99Ms: 1, cpuS: 0.1, wallS: 5, rssBytes: 1, probeMs: 3 };

it("what the arm, the generator and the agent did not use is foreign; steal is told apart; other processors don't count", () => {
  const before = parseProcStat(stat("100 0 50 800 10 0 0 0 0 0", "0 0 0 1000 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0"), [0, 1], 0);
  //                               +300 user, +100 sys, +60 idle, +40 steal    +400 user, +100 idle          a busy third processor
  const after = parseProcStat(stat("400 0 150 860 10 0 0 40 0 0", "400 0 0 1100 0 0 0 0 0 0", "9999 0 0 0 0 0 0 0 0 0"), [0, 1], 5000);
  const quiet = quietOf(before, after, { armS: 7, generatorS: 0.2, agentS: 0.1, processors: 2 }, self, 1);
  expect(quiet.stealPct).toBeCloseTo(4, 9);
  expect(quiet.foreignCpuPct).toBeCloseTo(7, 9);
  expect(quiet.armCpuPct).toBeCloseTo(70, 9);
  expect(quiet.resolutionPct).toBeCloseTo(0.4, 9);
});

it("each limit refuses by itself and says its value; a schedule counts in an open loop only", () => {
  const quiet = {
    stealPct: 0,
    foreignCpuPct: 1,
    armCpuPct: 90,
    generatorCpuPct: 1,
    scheduleSlipP99Ms: 1,
    loopDelayP99Ms: 2,
    slowdown: 1.01,
    resolutionPct: 0.4,
  };
  expect(refusalOf(quiet, true, QUIET_LIMITS)).toBeNull();
  expect(refusalOf({ ...quiet, stealPct: 3.5 }, true, QUIET_LIMITS)).toEqual({ reason: "steal time 3.50% > 3%", device: true });
  expect(refusalOf({ ...quiet, stealPct: 3.3 }, true, QUIET_LIMITS), "within a tick of the limit").toBeNull();
  expect(refusalOf({ ...quiet, foreignCpuPct: 9 }, false, QUIET_LIMITS)?.device).toBe(true);
  expect(refusalOf({ ...quiet, loopDelayP99Ms: 25 }, false, QUIET_LIMITS)).toMatchObject({ device: false });
  expect(refusalOf({ ...quiet, slowdown: 2 }, false, QUIET_LIMITS)?.reason).toMatch(/slowdown of the machine 2.00× > 1.25×/);
  expect(refusalOf({ ...quiet, scheduleSlipP99Ms: 11 }, true, QUIET_LIMITS)).not.toBeNull();
  expect(refusalOf({ ...quiet, scheduleSlipP99Ms: 11 }, false, QUIET_LIMITS)).toBeNull();
});

it("the device's clock runs", async () => {
  expect(cpuList("0,2-4")).toEqual([0, 2, 3, 4]);
  expect(() => cpuList("all")).toThrow(RangeError);
  const before = await readCpu([0]);
  while (performance.now() - before.atMs < 200);
  const after = await readCpu([0]);
  const [total, wall] = [after.totalS - before.totalS, (after.atMs - before.atMs) / 1000];
  expect(total).toBeGreaterThan(0.5 * wall);
  expect(total).toBeLessThan(2 * wall);
  await expect(readCpu([4095])).rejects.toThrow(/no processor 4095/);
});
