import { createRng, SEAMS, type Rng } from "@vibeserve/shared";
import { FleetFile } from "./fleet-file.ts";

/**
 * A fleet drawn by its seed, for benchmarks: three or four kinds that measure and builders, job times that differ by kind up to four times and single ones
 * by a sigma of 0.2 to 0.4, experiments that each build on what the last one showed, one attempt in ten that fails.
 */
export function fleetOf(seed: string): FleetFile {
  const random = createRng(`fleet ${seed}`);
  const between = (lo: number, hi: number) => lo + (hi - lo) * random.next();
  const whole = (lo: number, hi: number) => lo + random.int(hi - lo + 1);
  const kinds = Array.from({ length: whole(3, 4) }, (_, n) => {
    const self = n > 0 && random.next() < 0.3;
    const perAgent = self ? 1 : whole(1, 3);
    const sigma = between(0.2, 0.4);
    const duration = (lo: number, hi: number) => ({ medianS: Math.round(between(lo, hi)), sigma });
    return {
      name: `kind-${n + 1}`,
      device: (["nvidia", "amd", "apple", "cpu"] as const)[n] ?? "cpu",
      labels: { pool: `kind-${n + 1}` },
      count: perAgent * whole(2, 4),
      perAgent,
      usdPerHour: 1,
      ...(self ? {} : { builtOn: "builders" }),
      jobs: { build: duration(40, 160), check: duration(40, 160), bench: duration(100, 400) },
    };
  });
  const measuring = kinds.reduce((sum, k) => sum + k.count, 0);
  return FleetFile.parse({
    v: 1,
    kind: "fleet",
    name: `random-${seed}`,
    kinds: [...kinds, { name: "builders", device: "cpu", count: measuring, usdPerHour: 0.3 }],
    campaigns: kinds.map(({ name, count }) => ({ name, count: 4 * count, on: { pool: name }, experiments: whole(30, 36) })),
    turn: { medianS: Math.round(between(30, 240)), sigma: 0.5 },
    faults: { candidate: 0.04, device: 0.03, harness: 0.01, network: 0.02, agentLossPerDay: 0.2, repairS: 600 },
    skills: Array.from({ length: 54 }, (_, n) => skill(n, random)),
  });
}

function skill(n: number, random: Rng) {
  const stated = 1.1 + 0.5 * random.next();
  return { id: `skill-${n + 1}`, seam: SEAMS[n % SEAMS.length], stated, gain: 1 + (stated - 1) * (1.3 * random.next() - 0.1), sigma: 0.05 };
}
