import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Provider, ProviderOutcome, TurnRequest } from "./provider.ts";

/** One exchange with a model as `--record` keeps it, `<data>/transcripts/<campaign>/<turn>.json`. Holds no key: that is the provider's. */
export interface Exchange {
  v: 1;
  kind: "exchange";
  turn: string;
  provider: string;
  /** When it was asked, ms since the epoch. */
  at: number;
  request: TurnRequest;
  outcome: ProviderOutcome;
}

/** A turn's id as a file's name. */
export const exchangeFile = (turn: string): string => `${turn.replace(/[^A-Za-z0-9.]+/g, "-")}.json`;

/** The same provider, which also writes every exchange to `folder`. */
export function recording(provider: Provider, folder: string, now: () => number): Provider {
  return {
    ...provider,
    name: provider.name,
    async turn(request, signal) {
      const at = now();
      const outcome = await provider.turn(request, signal);
      const exchange: Exchange = { v: 1, kind: "exchange", turn: request.turn, provider: provider.name, at, request, outcome };
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      const file = join(folder, exchangeFile(request.turn));
      writeFileSync(`${file}.tmp`, JSON.stringify(exchange, null, 1), { mode: 0o600 });
      renameSync(`${file}.tmp`, file);
      return outcome;
    },
  };
}
