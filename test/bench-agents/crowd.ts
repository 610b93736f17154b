import { setTimeout as sleep } from "node:timers/promises";
import { row, type Row } from "../../coordinator/src/benchmarks/bench-report.ts";
import { within } from "../../coordinator/src/benchmarks/lane.ts";
import { overheads, tailFrom } from "./exchanges.ts";
import { askFloor } from "./floor.ts";
import { answerOf, shortTurn, startModel } from "./model.ts";
import { benchTarget, Stand, type BenchSite } from "./stand.ts";
import { at } from "./turns.ts";

/** A little more than 100 conversations, so that 100 turns are under way on average: some conversations are always between two turns. */
export const CROWD = { campaigns: 106, turns: 20, answerMs: 1_000 };
/** A few requests a second beside them, which cost the broker nothing: the same disk, as loaded as it is. */
const FLOOR = { requests: 60, answerMs: 200 };

/**
 * As many campaigns at once, each with one conversation; every answer takes a second. Each conversation's first answer waits until all have asked, and then they
 * go on spread over a second, as providers that know nothing of each other would answer.
 */
export async function measureCrowd(site: BenchSite, log: NodeJS.WritableStream, { campaigns, turns, answerMs } = CROWD): Promise<Row[]> {
  const course = { experiments: [{ turns, handsIn: false }], work: shortTurn };
  const [everybody, tail] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
  let [asked, allAt, open, most] = [0, 0, 0, 0];
  await using model = await startModel(
    async ({ turn }, { sent }) => {
      const script = answerOf(turn, course);
      if (turn.role !== "implementer") return script;
      most = Math.max(most, ++open);
      void sent.then(() => open--);
      if (turn.n === turns) tail.resolve(undefined);
      if (turn.n === 1) {
        const mine = asked++;
        if (asked === campaigns) {
          allAt = performance.now();
          everybody.resolve(undefined);
        }
        await everybody.promise;
        await sleep((answerMs * mine) / campaigns);
      }
      await sleep(answerMs);
      return { ...script, usage: { input_tokens: 10_000, output_tokens: 80 } };
    },
    { keep: false, floorMs: FLOOR.answerMs },
  );
  await using stand = await Stand.start(site, model.server.url);
  log.write(`agents: ${campaigns} campaigns at once, ${turns} turns each\n`);
  for (let n = 1; n <= campaigns; n++) await stand.submit(benchTarget(n));
  await stand.ended(() => allAt > 0);
  await askFloor(stand, model.server.url, 0, FLOOR.requests, site.signal);
  await within(tail.promise, "the first conversation comes to its last turn", site.signal);
  await stand.ended();
  const talks = model.exchanges.filter((e) => e.turn.role === "implementer");
  const until = tailFrom(talks);
  const during = overheads(model.exchanges).filter(({ sentAt, ms }) => sentAt >= allAt && sentAt + ms <= until);
  const of = (role: string) => during.filter(({ turn }) => turn.role === role);
  const [timed, least] = [of("implementer"), of("floor")];
  const inside = (from: number, to: number) => Math.max(0, Math.min(to, until) - Math.max(from, allAt));
  const mean = talks.reduce((sum, e) => sum + inside(e.at, e.sentAt ?? until), 0) / (until - allAt);
  const peak = stand.peakMb();
  return [
    row("crowd: turns under way at once, most", most, "turns", ">= 100"),
    row("crowd: turns under way at once, mean", mean, "turns", ""),
    row(`crowd: overhead per turn, p50 of ${timed.length}`, at(timed, 0.5), "ms", ""),
    row("crowd: overhead per turn, p95", at(timed, 0.95), "ms", "<= 60"),
    row(`crowd: floor under the same load, p50 of ${least.length}`, at(least, 0.5), "ms", ""),
    row("crowd: floor under the same load, p95", at(least, 0.95), "ms", ""),
    row("crowd: coordinator's memory, peak", peak.coordinator, "MB", "<= 400"),
    row("crowd: broker's memory, peak", peak.broker, "MB", ""),
  ];
}
