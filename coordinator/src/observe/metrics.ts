import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import { CATALOG, type CounterName, type GaugeName, type HistogramName } from "./catalog.ts";

export type { GaugeName };

type Labels = Record<string, string>;
export type Sample = readonly [labels: Labels, value: number];

/** The catalogue's metrics with their values, and those that the library has of every Node process (`process_*`, `nodejs_*`: CPU, memory, event loop). */
export class Metrics {
  readonly #registry = new Registry();
  readonly #gauges = new Map<string, Gauge>();
  readonly #counters = new Map<string, Counter>();
  readonly #histograms = new Map<string, Histogram>();

  constructor() {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    // Gauges with a counter's name, which scrapers' linters refuse; the same is in them without `_total`, by type.
    for (const what of ["handles", "requests", "resources"]) this.#registry.removeSingleMetric(`nodejs_active_${what}_total`);
    for (const [name, metric] of Object.entries(CATALOG)) {
      const config = { name, help: metric.help, labelNames: "labels" in metric ? [...metric.labels] : [], registers };
      if (metric.kind === "gauge") this.#gauges.set(name, new Gauge(config));
      else if (metric.kind === "counter") this.#counters.set(name, new Counter(config));
      else this.#histograms.set(name, new Histogram({ ...config, buckets: [...metric.buckets] }));
    }
  }

  /** What it is now, and nothing else: label sets that are not among the samples are gone. */
  set(name: GaugeName, samples: Iterable<Sample>): void {
    const gauge = this.#gauges.get(name);
    gauge?.reset();
    // One without labels begins at 0 after a reset; what is not known is absent.
    gauge?.remove({});
    for (const [labels, value] of samples) gauge?.set(labels, value);
  }

  /** What it has come to, where something else has counted. */
  total(name: CounterName, samples: Iterable<Sample>): void {
    const counter = this.#counters.get(name);
    counter?.reset();
    for (const [labels, value] of samples) counter?.inc(labels, value);
  }

  /** by 0: it is known, and was not yet; a rise from nothing is none to a rule. */
  inc(name: CounterName, labels: Labels = {}, by = 1): void {
    this.#counters.get(name)?.inc(labels, by);
  }

  observe(name: HistogramName, seconds: number, labels: Labels = {}): void {
    this.#histograms.get(name)?.observe(labels, seconds);
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async text(): Promise<string> {
    return this.#registry.metrics();
  }
}
