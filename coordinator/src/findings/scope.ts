import { clientsOf, type Device, type Workload } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import { meanTokens } from "../campaign/workloads.ts";

/** Where something was measured: what decides how much it says elsewhere. */
export interface Scope {
  /** Folder of the seed stack, such as "stacks/cpu": bindings fit one stack. */
  seed: string;
  device: Device["kind"];
  /** ISA or architecture as probed: "avx512_vnni", "sm_90". */
  isa: string;
  model: string;
  family: string;
  metric: string;
  arrival: Workload["arrival"]["process"];
  /** Classes are powers of four: 1–3, 4–15, 16–63, … requests at once, or tokens. */
  concurrency: number;
  prompt: number;
  output: number;
  simulated: boolean;
}

const classOf = (n: number): number => Math.floor(Math.log(Math.max(1, n)) / Math.log(4));

/** The letters that a model's name begins with: "SmolLM2-135M" and "org/SmolLM-1.7B" are both "smollm". */
export const familyOf = (model: string): string => /[a-z]+/.exec(model.slice(model.lastIndexOf("/") + 1).toLowerCase())?.[0] ?? "";

/** Null before a device was bound. An open loop counts as eight requests at once, as in the roofline. */
export function scopeOf({ target, device }: Pick<Campaign, "target" | "device">): Scope | null {
  if (!device) return null;
  const { arrival, prompt, output } = target.workload;
  return {
    seed: target.seed,
    device: device.kind,
    isa: device.isa,
    model: target.model.name,
    family: familyOf(target.model.name),
    metric: target.objective.name,
    arrival: arrival.process,
    concurrency: classOf(clientsOf(target.workload)),
    prompt: classOf(meanTokens(prompt)),
    output: classOf(meanTokens(output)),
    simulated: device.simulated,
  };
}

/**
 * How much a result in one scope says in another: 0 (nothing) to 1 (the same scope), symmetric. The product of one factor for each thing that differs. They
 * are judgements, to be replaced once matrices have been measured: an instruction set decides which kernel pays (0.6), another kind of device nearly
 * everything (0.25), another stack holds other code for the same idea (0.3); a model of another family has other shapes (0.8), a sister model 0.95; another
 * metric weighs prefill and decode differently (0.7); an open loop queues (0.85); each step of four in load or length 0.9. Real and simulated never meet (I10).
 */
export function similarity(a: Scope, b: Scope): number {
  if (a.simulated !== b.simulated) return 0;
  const steps = (["concurrency", "prompt", "output"] as const).reduce((n, key) => n + Math.abs(a[key] - b[key]), 0);
  return [
    a.seed === b.seed ? 1 : 0.3,
    a.device !== b.device ? 0.25 : a.isa === b.isa ? 1 : 0.6,
    a.family !== b.family ? 0.8 : a.model === b.model ? 1 : 0.95,
    a.metric === b.metric ? 1 : 0.7,
    a.arrival === b.arrival ? 1 : 0.85,
    0.9 ** steps,
  ].reduce((product, factor) => product * factor, 1);
}
