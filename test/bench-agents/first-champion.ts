import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CampaignEvent, type CampaignEvent as Event } from "@vibeserve/shared";
import { row, type BenchReport, type Row } from "../../coordinator/src/benchmarks/bench-report.ts";
import { ROOT } from "./model.ts";

const RECORDING = "test/fixtures/transcripts/cpu-chat/events.jsonl";
const WHAT = "tokens to the first champion of the recorded campaign";

/** What the recorded campaign's models took, cache included, until a champion was crowned. */
export function measureFirstChampion(): { rows: Row[]; notMeasured: BenchReport["notMeasured"] } {
  const file = join(ROOT, RECORDING);
  if (!existsSync(file)) return { rows: [], notMeasured: [{ what: WHAT, why: `there is no ${RECORDING}` }] };
  const lines = readFileSync(file, "utf8").trim().split("\n");
  const tokens = tokensToChampion(lines.map((line) => CampaignEvent.parse(JSON.parse(line))));
  return tokens === null
    ? { rows: [], notMeasured: [{ what: WHAT, why: "it crowned none" }] }
    : { rows: [row(WHAT, tokens, "tokens", "")], notMeasured: [] };
}

/** Null: no champion was crowned. */
export function tokensToChampion(events: readonly Event[]): number | null {
  const at = events.findIndex(({ fact }) => fact.type === "champion.crowned");
  if (at < 0) return null;
  return events.slice(0, at).reduce((sum, { fact }) => {
    const usage = fact.type === "turn.settled" ? fact.outcome.usage : null;
    return usage ? sum + usage.input + usage.output + usage.cacheRead + usage.cacheWrite : sum;
  }, 0);
}
