import { quantile, type CampaignEvent, type TurnUsage } from "@vibeserve/shared";
import { row, type Row } from "../../coordinator/src/benchmarks/bench-report.ts";
import { within } from "../../coordinator/src/benchmarks/lane.ts";
import { textOf, type Asked } from "../kit/messages-server.ts";
import { overheads, type Overhead } from "./exchanges.ts";
import { askFloor } from "./floor.ts";
import { answerOf, fullTurn, startModel } from "./model.ts";
import { benchTarget, Stand, type BenchSite } from "./stand.ts";

/** The first experiment is handed in after 30 turns and warms the process up; in three more of 60 turns, the most there may be, nothing but local tools is called. */
const COURSE = {
  experiments: [{ turns: 30, handsIn: true }, ...Array.from({ length: 3 }, () => ({ turns: 60, handsIn: false }))],
  work: fullTurn,
};
const [FLOOR, FLOOR_WARM_UPS] = [50, 10];

/** One conversation after another: what lies between turns beside the least that it could be, what is read from the cache, and the first prompt. */
export async function measureTurns(site: BenchSite, log: NodeJS.WritableStream): Promise<Row[]> {
  const over = Promise.withResolvers<undefined>();
  await using model = await startModel(
    ({ turn }) => {
      if (turn.role === "planner" && turn.experiment === COURSE.experiments.length) over.resolve(undefined);
      return answerOf(turn, COURSE);
    },
    { keep: true },
  );
  await using stand = await Stand.start(site, model.server.url);
  const floor = async (from: number, requests: number) => askFloor(stand, model.server.url, from, requests, site.signal);
  log.write(
    `agents: a campaign of ${COURSE.experiments.map((x) => x.turns).join(" + ")} turns, one at a time, and the floor before and after it\n`,
  );
  await floor(0, FLOOR_WARM_UPS + FLOOR);
  const campaign = await stand.submit(benchTarget());
  await within(over.promise, "the search ends", site.signal);
  await stand.ended();
  await floor(1_000, FLOOR_WARM_UPS + FLOOR);

  const all = overheads(model.exchanges);
  const timed = all.filter(({ turn }) => turn.role === "implementer" && turn.experiment > 1);
  const least = all.filter(({ turn }) => turn.role === "floor" && turn.n % 1_000 >= FLOOR_WARM_UPS);
  const third = (from: number) => timed.filter(({ turn }) => turn.n > from && turn.n <= from + 20);
  const first = model.server.asked.find((a) => String(a.headers["x-vibeserve-turn"]) === "implementer:e1.0.1.1");
  if (!first) throw new Error("no implementer was asked");
  return [
    row(`overhead per turn, p50 of ${timed.length}`, at(timed, 0.5), "ms", ""),
    row("overhead per turn, p95", at(timed, 0.95), "ms", "<= 30"),
    row("overhead per turn, p95 of turns 1 to 20 of 60", at(third(0), 0.95), "ms", ""),
    row("overhead per turn, p95 of turns 41 to 59 of 60", at(third(40), 0.95), "ms", ""),
    row(`floor: HTTP and two stored messages, p50 of ${least.length}`, at(least, 0.5), "ms", ""),
    row("floor: HTTP and two stored messages, p95", at(least, 0.95), "ms", ""),
    row("largest prompt of these turns", Math.max(...model.server.asked.map((a) => Number(a.headers["content-length"]))) / 1e3, "kB", ""),
    row("input read from the cache, experiment of 30 turns", cacheShare(await stand.events(campaign)), "%", ">= 80"),
    row("implementer's first prompt, first experiment", Math.ceil(promptBytes(first) / 3), "tokens", "<= 8000"),
  ];
}

export const at = (sample: readonly Overhead[], q: number): number =>
  quantile(
    sample.map(({ ms }) => ms),
    q,
  );

/** System text, message and tools of a request that begins a conversation, bytes of UTF-8. */
export function promptBytes({ body }: Asked): number {
  const system = (body.system as { text: string }[]).map(({ text }) => text).join("");
  return Buffer.byteLength(system) + Buffer.byteLength(textOf(body.messages[0])) + Buffer.byteLength(JSON.stringify(body.tools ?? []));
}

/** Of all input tokens of the first experiment's own turns (implementer, judge, evaluator), as the provider billed them, percent. */
export function cacheShare(events: readonly CampaignEvent[]): number {
  const own = new Set(
    events.flatMap(({ fact }) => (fact.type === "turn.requested" && fact.of?.experimentId === "e1" ? [fact.turnId] : [])),
  );
  const usage = events.flatMap(({ fact }): TurnUsage[] =>
    fact.type === "turn.settled" && own.has(fact.turnId) && fact.outcome.usage ? [fact.outcome.usage] : [],
  );
  const sum = (of: (u: TurnUsage) => number) => usage.reduce((total, u) => total + of(u), 0);
  return (100 * sum((u) => u.cacheRead)) / sum((u) => u.input + u.cacheRead + u.cacheWrite);
}
