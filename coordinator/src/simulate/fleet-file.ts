import { Device, Id, message, Seam } from "@vibeserve/shared";
import { z } from "zod";

const positive = z.number().positive();
const share = z.number().min(0).max(1);
const perDay = z.number().min(0);

/** Log-normal: median in seconds, sigma of the logarithm (0.3: two thirds lie within 0.74 to 1.35 of the median). */
export const Duration = z.strictObject({ medianS: positive, sigma: z.number().min(0).max(2).default(0.3) });
export type Duration = z.infer<typeof Duration>;

/** What a broken agent does with an answer, as shares of attempts. Over the protocol only: in virtual time there is nobody to be deceived. */
const Misdeeds = z.strictObject({
  /** Stops dead until its lease is over, and answers then. */
  freeze: share.default(0),
  /** Answers under an earlier lease's token first. */
  stale: share.default(0),
  /** Answers the same three times. */
  duplicate: share.default(0),
  /** Reports a ratio that no stack can have. */
  impossible: share.default(0),
});
export type Misdeeds = z.infer<typeof Misdeeds>;

/** What goes wrong. Shares are of attempts; a failure comes somewhere within the job's time. */
export const Faults = Misdeeds.extend({
  /** The candidate's own: it does not build, or fails its check. Not the seed's. */
  candidate: share.default(0.05),
  device: share.default(0.02),
  harness: share.default(0.01),
  network: share.default(0.02),
  /** An agent vanishes with what it runs, so often a day, and comes back after repairS. */
  agentLossPerDay: perDay.default(0.2),
  repairS: positive.default(900),
});

export const FleetKind = z.strictObject({
  /** Also the name of its pool. */
  name: Id,
  device: Device.shape.kind,
  /** Any labels; campaigns select by them. `vibeserve.dev/device.kind` is set from `device`. */
  labels: z.record(z.string(), z.string()).default({}),
  count: z.int().min(1),
  /** Devices of one machine: a gang must fit into one. */
  perAgent: z.int().min(1).default(1),
  usdPerHour: z.number().min(0),
  /** The kind that compiles for it. Absent: each machine compiles for itself, and measures nothing meanwhile. */
  builtOn: Id.optional(),
  /** bench: a screening of the fewest pairs; more pairs take longer. check: a screening; the check before crowning takes three times as long. */
  jobs: z.strictObject({ build: Duration, check: Duration, bench: Duration }).optional(),
  /** Standard deviation of the logarithm of one pair's ratio. */
  noise: z.number().min(0).max(1).default(0.01),
  faults: Faults.optional(),
});
export type FleetKind = z.infer<typeof FleetKind>;

const CampaignGroup = z.strictObject({
  name: Id.max(24),
  /** So many alike, each with true effects and failures of its own. */
  count: z.int().min(1).default(1),
  /** Labels of the kinds that suit; of several the one with the fewest campaigns a device. */
  on: z.record(z.string(), z.string()),
  experiments: z.int().min(1),
  /** Devices that a check or a bench takes at once, of one machine. */
  devices: z.int().min(1).default(1),
  weight: positive.default(1),
  priority: z.int().default(0),
  startH: z.number().min(0).default(0),
  deadlineH: positive.optional(),
});

export const FleetFile = message("fleet", {
  name: Id,
  kinds: z.array(FleetKind).min(1),
  campaigns: z.array(CampaignGroup).min(1),
  /** What an agent thinks and writes for one experiment: time, and money. */
  turn: Duration.extend({ usd: z.number().min(0).default(0) }),
  faults: Faults.default(() => Faults.parse({})),
  /**
   * What a search can find. stated: what the playbook is told beforehand, challenger ÷ parent; gain: the truth over the seed's binding of that seam, for all
   * or by kind; sigma: how far single campaigns are from it (standard deviation of the logarithm).
   */
  skills: z
    .array(
      z.strictObject({
        id: Id,
        seam: Seam,
        stated: positive,
        gain: z.union([positive, z.record(z.string(), positive)]),
        sigma: z.number().min(0).max(1).default(0.05),
      }),
    )
    .min(1),
});
export type FleetFile = z.infer<typeof FleetFile>;

export const labelsOf = (kind: FleetKind): Record<string, string> => ({ "vibeserve.dev/device.kind": kind.device, ...kind.labels });

/** Kinds that measure; the others only compile. */
export const measures = (fleet: FleetFile, kind: FleetKind): boolean => !fleet.kinds.some((k) => k.builtOn === kind.name);

/** Name of the kind that does a job of a campaign on this one. */
export const workerOf = ({ name, builtOn }: FleetKind, build: boolean): string => (build ? (builtOn ?? name) : name);

export const suitable = (fleet: FleetFile, on: Readonly<Record<string, string>>): FleetKind[] =>
  fleet.kinds.filter((kind) => measures(fleet, kind) && Object.entries(on).every(([key, value]) => labelsOf(kind)[key] === value));

/** Problems that the types can't state: [path, message]. */
export function fleetProblems(fleet: FleetFile): [path: (string | number)[], message: string][] {
  const problems: [(string | number)[], string][] = [];
  const names = fleet.kinds.map((k) => k.name);
  fleet.kinds.forEach((kind, i) => {
    const { name, builtOn, perAgent, count } = kind;
    if (names.indexOf(name) !== i) problems.push([["kinds", i, "name"], `"${name}" is there twice`]);
    if (builtOn !== undefined && !names.includes(builtOn))
      problems.push([["kinds", i, "builtOn"], `"${builtOn}" is no kind; kinds: ${names.join(", ")}`]);
    if (builtOn === undefined && perAgent > 1 && measures(fleet, kind))
      problems.push([["kinds", i, "builtOn"], "is missing: only a machine with one device compiles for itself"]);
    if (count % perAgent !== 0) problems.push([["kinds", i, "perAgent"], `${count} devices do not make machines of ${perAgent}`]);
    if (measures(fleet, kind) && !kind.jobs) problems.push([["kinds", i, "jobs"], "is missing: campaigns run on this kind"]);
  });
  fleet.campaigns.forEach(({ on, devices, name }, i) => {
    const found = suitable(fleet, on);
    if (found.length === 0) problems.push([["campaigns", i, "on"], `no kind has ${JSON.stringify(on)}`]);
    else if (!found.some((k) => k.perAgent >= devices))
      problems.push([["campaigns", i, "devices"], `no machine that suits ${name} has ${devices} devices`]);
  });
  const seen = fleet.campaigns.map((c) => c.name);
  seen.forEach((name, i) => {
    if (seen.indexOf(name) !== i) problems.push([["campaigns", i, "name"], `"${name}" is there twice`]);
  });
  return problems;
}
