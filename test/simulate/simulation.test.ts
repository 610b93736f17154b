import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createRng, JobResult, Measurement, METRICS, Outcome, sha256, type BenchSpec, type Job } from "@vibeserve/shared";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { run } from "../../coordinator/src/cli/program.ts";
import { outcomeOf, type SimulatedDevice } from "../../coordinator/src/simulate/device-model.ts";
import { devicesNeeded } from "../../coordinator/src/simulate/devices-needed.ts";
import { Faults, type FleetFile } from "../../coordinator/src/simulate/fleet-file.ts";
import { planOf } from "../../coordinator/src/simulate/plan.ts";
import { planText } from "../../coordinator/src/simulate/plan-text.ts";
import { parseFleet } from "../../coordinator/src/simulate/read-fleet.ts";
import { deviceOf } from "../../coordinator/src/simulate/simulated-campaign.ts";
import { simulatedResult } from "../../coordinator/src/simulate/simulated-records.ts";
import { FleetSimulation } from "../../coordinator/src/simulate/simulation.ts";
import { tempDir } from "../kit/temp-dir.ts";

const MIXED = join(import.meta.dirname, "..", "..", "targets", "fleets", "mixed.yaml");
const mixed = readFileSync(MIXED, "utf8");

/** The example with so many campaigns a group, that a test may take its time. */
const small = (count: number, experiments = 6): FleetFile => {
  const fleet = parseFleet(mixed, MIXED);
  return { ...fleet, campaigns: fleet.campaigns.map((c) => ({ ...c, count, experiments })) };
};

describe("a simulated fleet", () => {
  it("gives the same plan for the same seed, another for another, and says everywhere that it is simulated", () => {
    const plan = (seed: string) => planOf(new FleetSimulation(small(2), seed).run());
    expect(plan("7")).toEqual(plan("7"));
    expect(plan("8").makespanMs).not.toBe(plan("7").makespanMs);
    expect(plan("7").simulated).toBe(true);
    expect(planText(plan("7"))).toContain("SIMULATED");
  });

  it("ends every campaign though a tenth of attempts fails and agents are lost, and never before its lower bound", () => {
    const fleet = small(2);
    const faults = Faults.parse({ candidate: 0.1, device: 0.05, harness: 0.05, network: 0.05, agentLossPerDay: 20, repairS: 600 });
    const run = new FleetSimulation({ ...fleet, faults }, "1").run();
    const plan = planOf(run);
    expect(run.agentLosses).toBeGreaterThan(10);
    expect(run.campaigns.every((c) => Number.isFinite(c.endMs) && c.endMs >= c.startMs + c.chainMs - 1)).toBe(true);
    expect(plan.makespanMs).toBeGreaterThanOrEqual(plan.lowerBoundMs - 1);
    // Nothing is measured on a machine that compiles for itself, and no device does two things at once.
    for (const { kind } of run.kinds) {
      const edges = run.works
        .filter((w) => w.kind === kind.name)
        .flatMap((w) => [[w.startMs, w.devices] as const, [w.endMs, -w.devices] as const]);
      edges.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      let busy = 0;
      for (const [, n] of edges) expect((busy += n)).toBeLessThanOrEqual(kind.count);
    }
  });

  it("runs gangs, priorities and deadlines from the file", () => {
    const fleet = small(3);
    const [first, ...others] = fleet.campaigns.slice(0, 4);
    if (!first) throw new Error("no campaign");
    const campaigns = [
      { ...first, devices: 4 },
      { ...others[0], ...{ ...first, name: "urgent", priority: 1 } },
      { ...first, name: "late", startH: 1, deadlineH: 1.5 },
    ];
    const run = new FleetSimulation({ ...fleet, campaigns }, "1").run();
    expect(run.works.filter((w) => w.devices === 4).length).toBeGreaterThan(20);
    expect(run.campaigns.filter((c) => c.group === "late").every((c) => c.startMs === 3_600_000)).toBe(true);
    expect(planOf(run).bounds.find((b) => b.what === "campaigns past their deadline")?.ok).toBe(false);
  });

  it("finds the devices that are needed, or says who can't be in time", () => {
    const fleet = small(6, 10);
    const plan = planOf(new FleetSimulation(fleet, "1").run());
    const soon = devicesNeeded(fleet, "1", 60_000, plan);
    expect(soon.enough ? "" : soon.why).toMatch(/^campaign \S+ alone takes \d+ min/);
    const longest = Math.max(...plan.campaigns.map((c) => c.chainMs));
    const needed = devicesNeeded(fleet, "1", 2 * longest, plan);
    if (!needed.enough) throw new Error(needed.why);
    expect(needed.plan.makespanMs).toBeLessThanOrEqual(2 * longest);
    expect(needed.plan.jobs).toBeGreaterThan(0.9 * plan.jobs);
  }, 60_000);
});

describe("a fleet's file", () => {
  it("names the line, the key and what is wrong", () => {
    const bad = mixed
      .replace("count: 12\n", "count: 0\n")
      .replace("device: apple", "device: pear")
      .replace("experiments: 30 }", "experiments: 30, color: red }");
    const lines = (text: string): string => {
      try {
        parseFleet(text, "f.yaml");
        return "";
      } catch (error) {
        return error instanceof Error ? error.message : "";
      }
    };
    expect(lines(bad)).toMatch(/f\.yaml:\d+: kinds\.3\.device: /);
    expect(lines(bad)).toMatch(/f\.yaml:\d+: kinds\.3\.count: /);
    expect(lines(bad)).toMatch(/f\.yaml:\d+: campaigns\.0: .*color/);
    expect(lines(mixed.replace("builtOn: builders", "builtOn: nobody"))).toMatch(/kinds\.0\.builtOn: "nobody" is no kind/);
    expect(lines(mixed.replace("perAgent: 4", "perAgent: 5"))).toMatch(/kinds\.2\.perAgent: 32 devices do not make machines of 5/);
    expect(lines(mixed.replace("product: NVIDIA-L4 }, exp", "product: NVIDIA-L5 }, exp"))).toMatch(/campaigns\.8\.on: no kind has/);
    expect(lines("a: [")).toMatch(/f\.yaml:1: not YAML/);
  });
});

it("over the protocol no campaign takes more devices at once than a job may", async () => {
  using dir = tempDir("fleet");
  const { kinds, campaigns, ...rest } = small(1);
  const large = kinds.map((kind) => (kind.builtOn === undefined ? kind : { ...kind, perAgent: 20, count: 40 }));
  const file = join(dir.path, "fleet.json");
  writeFileSync(file, JSON.stringify({ ...rest, kinds: large, campaigns: campaigns.slice(0, 1).map((c) => ({ ...c, devices: 20 })) }));
  const said = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    expect(await run(["simulate", file, "--protocol"], "0.0.0")).toBe(2);
    expect(said.mock.calls.join("")).toMatch(/campaign .* takes 20 devices at once: a job's are 16 at the most/);
  } finally {
    said.mockRestore();
  }
});

describe("a simulated device", () => {
  const on = (faults: Partial<SimulatedDevice["faults"]>): SimulatedDevice => ({
    device: deviceOf({ name: "h100", device: "nvidia", labels: {}, count: 1, perAgent: 1, usdPerHour: 0, noise: 0.01 }, "h100-0"),
    jobs: { build: { medianS: 10, sigma: 0.3 }, check: { medianS: 20, sigma: 0.3 }, bench: { medianS: 40, sigma: 0.3 } },
    noise: 0.01,
    faults: Faults.parse({ candidate: 0, device: 0, harness: 0, network: 0, agentLossPerDay: 0, repairS: 1, ...faults }),
    rateOf: ({ treeDigest }) => (treeDigest.startsWith("a") ? 150 : 100),
    leaseToken: 3,
    sign: () => "signed",
  });
  const stack = (c: string) => ({
    treeDigest: c.repeat(40),
    tree: { digest: sha256(c), bytes: 1 },
    buildDigest: sha256(c),
    provenance: "shipped" as const,
  });
  const length = { distribution: "fixed" as const, tokens: 8 };
  const workload = { arrival: { process: "closed" as const, concurrency: 2 }, prompt: length, output: length, requests: 4 };
  const model = { name: "m", file: "m", sha256: sha256("m") };
  const bench: BenchSpec = {
    kind: "bench",
    purpose: "screen",
    challenger: { role: "challenger", stack: { source: "build", build: stack("a") } },
    champion: { role: "champion", stack: { source: "build", build: stack("b") } },
    model,
    workload,
    metric: METRICS.output_tokens_per_second,
    pairs: { min: 2, max: 4 },
    confidence: 0.9,
    runLimitMs: 1_000,
  };
  const tree = { treeDigest: "c".repeat(40), tree: { digest: sha256("c"), bytes: 1 }, provenance: "shipped" as const };
  const specs: Job["spec"][] = [
    bench,
    { kind: "build", ...tree },
    { kind: "check", stack: stack("a"), model, level: "crown", accuracy: "exact" },
    { kind: "profile", stack: stack("a"), model, workload },
    { kind: "exec", ...tree, argv: ["true"], limitMs: 1_000 },
    { kind: "baseline", engine: "vllm", model, workload, metric: METRICS.output_tokens_per_second },
  ];
  const jobOf = (spec: Job["spec"], experiment = "e1"): Job => {
    return { v: 1, kind: "job", id: "c_e1_x", campaign: "c", experiment, attempt: 1, pool: "h100", issuedAt: 1, deadlineMs: 1_000, spec };
  };

  it("answers every kind of job as the wire wants it, the same for the same randomness, and marked as simulated", () => {
    fc.assert(
      fc.property(fc.constantFrom(...specs), fc.string(), fc.constantFrom(0, 0.3), (spec, seed, device) => {
        const answer = () => outcomeOf(jobOf(spec), on({ device }), createRng(seed));
        const { ms, outcome } = answer();
        expect(answer()).toEqual({ ms, outcome });
        expect(ms).toBeGreaterThanOrEqual(1);
        expect(Outcome.parse(outcome)).toEqual(outcome);
        const by = { agentId: "simulated", deviceId: "h100-0", token: 1 };
        const result = simulatedResult(jobOf(spec), by, { startedAt: 1, endedAt: 1 + ms }, outcome);
        expect(JobResult.parse({ ...result, sig: "" }).outcome).toEqual(outcome);
        if (outcome.status !== "measured") return;
        for (const m of [outcome.challenger, outcome.champion]) {
          expect(Measurement.parse(m).certificate.simulated).toBe(true);
          expect(m.device.simulated).toBe(true);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("measures the truth within its noise", () => {
    const points = Array.from({ length: 200 }, (_, n) => {
      const { outcome } = outcomeOf(jobOf(bench), on({}), createRng(`bench ${n}`));
      return outcome.status === "measured" ? outcome.comparison.point : NaN;
    });
    const mean = points.reduce((a, b) => a + b, 0) / points.length;
    expect(Math.abs(mean - 1.5)).toBeLessThan(0.01);
  });

  it("blames what the fault's share says, and never a candidate for the seed or a measurement", () => {
    const blamed = (spec: Job["spec"], experiment: string, faults: Partial<SimulatedDevice["faults"]>) => {
      const { outcome } = outcomeOf(jobOf(spec, experiment), on(faults), createRng("x"));
      return outcome.status === "failed" ? outcome.failure.attribution : null;
    };
    const [, build, check] = specs;
    if (!build || !check) throw new Error("no spec");
    for (const who of ["candidate", "device", "harness", "network"] as const) expect(blamed(build, "e1", { [who]: 1 })).toBe(who);
    for (const [spec, experiment] of [
      [build, "seed"],
      [check, "e1"],
      [bench, "e1"],
    ] as const)
      expect(blamed(spec, experiment, { candidate: 1 })).toBeNull();
  });
});
