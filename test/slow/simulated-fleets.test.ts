import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { planOf } from "../../coordinator/src/simulate/plan.ts";
import { fleetOf } from "../../coordinator/src/simulate/random-fleet.ts";
import { parseFleet } from "../../coordinator/src/simulate/read-fleet.ts";
import { FleetSimulation } from "../../coordinator/src/simulate/simulation.ts";

describe("simulated fleets keep to 1.10 of the lower bound, to equal shares within 1.1, and to 5 % idle with a backlog", () => {
  it.each(["1", "2", "3", "4", "5"])("drawn by seed %s", (seed) => {
    const fleet = fleetOf(seed);
    const { candidate, device, harness, network } = fleet.faults;
    expect(fleet.kinds.filter((k) => k.jobs).length).toBeGreaterThanOrEqual(3);
    expect(candidate + device + harness + network).toBeCloseTo(0.1);
    const plan = planOf(new FleetSimulation(fleet, seed).run());
    expect(plan.bounds.filter((b) => !b.ok)).toEqual([]);
    expect(plan.bounds.every((b) => b.value !== null)).toBe(true);
  });

  it("the example that ships", () => {
    const fleet = parseFleet(readFileSync(join(import.meta.dirname, "..", "..", "targets", "fleets", "mixed.yaml"), "utf8"), "mixed.yaml");
    expect(planOf(new FleetSimulation(fleet, "1").run()).bounds.filter((b) => !b.ok)).toEqual([]);
  });
}, 120_000);
