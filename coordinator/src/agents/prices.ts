import { existsSync, readFileSync } from "node:fs";
import { issuesOf, type TurnUsage } from "@vibeserve/shared";
import { parse } from "yaml";
import { z } from "zod";

const perMillion = z.number().min(0);
export const Price = z.strictObject({ input: perMillion, output: perMillion, cacheRead: perMillion, cacheWrite: perMillion });
export type Price = z.infer<typeof Price>;
const Prices = z.strictObject({ asOf: z.coerce.date(), models: z.record(z.string(), Price) });
export type Prices = z.infer<typeof Prices>;

/** A price file that can't be used. */
export class PricesError extends Error {
  override readonly name = "PricesError";
}

/**
 * The first of these files that exists, as it stands whenever it is asked; it is parsed again only when it has changed. Throws PricesError naming the file and the
 * key.
 */
export function priceFile(paths: readonly string[]): () => Prices {
  let last: { path: string; text: string; prices: Prices } | null = null;
  return () => {
    const path = paths.find((p) => existsSync(p));
    if (path === undefined) throw new PricesError(`no price file: ${paths.join(", ")}`);
    const text = orNamed(path, () => readFileSync(path, "utf8"));
    if (last?.path !== path || last.text !== text) last = { path, text, prices: parsed(path, text) };
    return last.prices;
  };
}

function orNamed<T>(path: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new PricesError(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function parsed(path: string, text: string): Prices {
  const prices = Prices.safeParse(orNamed(path, () => parse(text) as unknown));
  if (!prices.success) throw new PricesError(`${path}: ${issuesOf(prices.error)}`);
  return prices.data;
}

/** Of a model by its name, which may be anything: `constructor` is a name of every object. */
export const priceOf = ({ models }: Prices, model: string | null): Price | undefined =>
  model !== null && Object.hasOwn(models, model) ? models[model] : undefined;

const PER = 1_000_000;

export const costUsd = (p: Price, u: TurnUsage): number =>
  (u.input * p.input + u.output * p.output + u.cacheRead * p.cacheRead + u.cacheWrite * p.cacheWrite) / PER;

/** The most that a turn can cost: no tokeniser makes more tokens than bytes, all are written to the cache, and the answer is as long as it may be. */
export const worstUsd = (p: Price, bytes: number, maxTokens: number): number =>
  (bytes * Math.max(p.input, p.cacheWrite) + maxTokens * p.output) / PER;
