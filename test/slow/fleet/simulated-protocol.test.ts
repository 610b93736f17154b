import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { loadSettings } from "../../../coordinator/src/config.ts";
import { FleetFile } from "../../../coordinator/src/simulate/fleet-file.ts";
import { protocolText } from "../../../coordinator/src/simulate/plan-text.ts";
import { planOf } from "../../../coordinator/src/simulate/plan.ts";
import { playOverProtocol } from "../../../coordinator/src/simulate/protocol-run.ts";
import { parseFleet } from "../../../coordinator/src/simulate/read-fleet.ts";
import { FleetSimulation } from "../../../coordinator/src/simulate/simulation.ts";

vi.setConfig({ testTimeout: 240_000 });

const mixed = parseFleet(readFileSync(join(import.meta.dirname, "../../../targets/fleets/mixed.yaml"), "utf8"), "mixed.yaml");

/** The example's skills and turns on other devices; each campaign of `experiments`. */
function fleetOf(counts: readonly number[], campaigns: number, experiments: number, faults: Partial<FleetFile["faults"]>): FleetFile {
  const kinds = counts.map((count, n) => ({
    ...{ name: `kind-${n}`, device: (["nvidia", "amd", "cpu"] as const)[n] ?? "cpu", labels: { pool: `kind-${n}` }, usdPerHour: 1, count },
    jobs: { build: { medianS: 60 }, check: { medianS: 60 + 30 * n }, bench: { medianS: 150 } },
  }));
  const groups = kinds.map(({ name, labels }) => ({ name, count: campaigns, on: labels, experiments }));
  const { skills, turn } = mixed;
  return FleetFile.parse({ v: 1, kind: "fleet", name: "test", kinds, campaigns: groups, turn, skills, faults });
}

const play = (fleet: FleetFile, speed: number, leaseTtlMs: number) =>
  playOverProtocol({
    ...{ fleet, seed: "7", speed, leaseTtlMs, settings: loadSettings({}), version: "0.0.0" },
    ...{ signal: AbortSignal.timeout(200_000), say: () => undefined },
  });

test("a small fleet does the same in virtual time and over the protocol: experiments, attempts, champions", async () => {
  const fleet = fleetOf([4, 3, 2], 3, 5, { candidate: 0.1, device: 0, harness: 0.04, network: 0.04, agentLossPerDay: 0 });
  const run = await play(fleet, 300, 20_000);
  expect(run.breaches).toEqual([]);
  const virtual = planOf(new FleetSimulation(fleet, "7").run());
  const counts = ({ campaigns }: typeof virtual) =>
    campaigns.map(({ id, experiments, gain, pauses }) => ({ id, experiments, gain, pauses }));
  expect(counts(run.plan)).toEqual(counts(virtual));
  expect(run.plan.jobs).toBe(virtual.jobs);
  expect(run.settled).toBe(virtual.jobs);
  expect(run.plan.campaigns.some((c) => c.gain > 1.2)).toBe(true);
});

test("campaigns that take two devices of a machine at once do the same in virtual time and over the protocol, beside one that takes one", async () => {
  const { kinds, campaigns, ...rest } = fleetOf([4], 1, 4, { candidate: 0.1, device: 0, harness: 0.04, network: 0.04, agentLossPerDay: 0 });
  const farm = { ...kinds[0]!, name: "farm", device: "cpu" as const, labels: {} };
  const fleet = FleetFile.parse({
    ...rest,
    kinds: [{ ...kinds[0], perAgent: 2, builtOn: "farm" }, farm],
    campaigns: [...campaigns, { ...campaigns[0], name: "gang", devices: 2, count: 2 }],
  });
  const run = await play(fleet, 300, 20_000);
  expect(run.breaches).toEqual([]);
  const virtual = planOf(new FleetSimulation(fleet, "7").run());
  // A product's last digit hangs on the order of its factors.
  const counts = ({ campaigns: all }: typeof virtual) =>
    all.map(({ id, experiments, gain }) => ({ id, experiments, gain: gain.toPrecision(12) }));
  expect(counts(run.plan)).toEqual(counts(virtual));
  expect(run.plan.jobs).toBe(virtual.jobs);
  // Counted with both devices of each; the real path only adds to it.
  const measured = ({ kinds: all }: typeof virtual) => all[0]?.workMs ?? 0;
  expect(measured(run.plan)).toBeGreaterThan(0.99 * measured(virtual));
});

test("a thousand agents that crash, freeze, lie, answer twice and under old tokens: every campaign ends, and its log holds I3, I5 and I8", async () => {
  const shares = {
    candidate: 0.05,
    device: 0.02,
    harness: 0.02,
    network: 0.02,
    freeze: 0.03,
    stale: 0.05,
    duplicate: 0.05,
    impossible: 0.03,
  };
  const fleet = fleetOf([400, 350, 250], 15, 4, { ...shares, agentLossPerDay: 6, repairS: 900 });
  const run = await play(fleet, 240, 5_000);
  process.stdout.write(`${protocolText(run)}\n`);
  expect(run.breaches).toEqual([]);
  expect(run.agents).toBe(1_000);
  expect(run.plan.campaigns.map((c) => c.experiments)).toEqual(run.plan.campaigns.map(() => 4));
  expect(Math.min(run.expired, run.refused, run.overruled, run.suspected, run.plan.agentLosses)).toBeGreaterThan(0);
});
