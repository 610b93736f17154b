import { z } from "zod";

/** Direction is part of the metric's type (I2): a comparison never guesses whether more is better. */
export const Direction = z.enum(["maximize", "minimize"]);

export const Metric = z.strictObject({ name: z.string().min(1), unit: z.string().min(1), direction: Direction });
export type Metric = z.infer<typeof Metric>;

/**
 * Every metric that the load generator can measure. A target names one of these; unit and direction must agree with the entry, so that a
 * latency can't be maximised by a slip in a YAML file.
 */
export const METRICS = {
  output_tokens_per_second: { name: "output_tokens_per_second", unit: "tok/s", direction: "maximize" },
  ttft_p50: { name: "ttft_p50", unit: "ms", direction: "minimize" },
  tpot_p50: { name: "tpot_p50", unit: "ms", direction: "minimize" },
  e2e_p50: { name: "e2e_p50", unit: "ms", direction: "minimize" },
  /** Median over requests of output tokens ÷ time from the scheduled instant to the last of them: what one user sees at concurrency 1. */
  request_tokens_per_second_p50: { name: "request_tokens_per_second_p50", unit: "tok/s", direction: "maximize" },
} as const satisfies Record<string, Metric>;

export type MetricName = keyof typeof METRICS;

/** Challenger over champion so that > 1 always means better, whatever the metric's direction. */
export function improvement(metric: Metric, challenger: number, champion: number): number {
  return metric.direction === "maximize" ? challenger / champion : champion / challenger;
}
