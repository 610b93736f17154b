import { once } from "node:events";
import { row, type Row } from "../../coordinator/src/benchmarks/bench-report.ts";
import { repeats } from "./exchanges.ts";
import { answerOf, fullTurn, startModel } from "./model.ts";
import { benchTarget, Stand, type BenchSite } from "./stand.ts";

const COURSE = { experiments: [{ turns: 8, handsIn: true }], work: fullTurn };
/** Turns that hang the first time that they are asked: in each the coordinator is killed. */
const KILLED_IN = ["implementer:e1.0.5.1", "judge:e1.1.2.1", "plan:0.1.1.1"];

/** SIGKILL to the coordinator while a turn hangs at the provider, three times in a campaign, each followed by a start on the same data. */
export async function measureKills(site: BenchSite, log: NodeJS.WritableStream): Promise<Row[]> {
  const hung = new EventTarget();
  const kills: string[] = [];
  await using model = await startModel(
    ({ turn }, { headers }) => {
      const id = String(headers["x-vibeserve-turn"]);
      if (!KILLED_IN.includes(id)) return answerOf(turn, COURSE);
      kills.push(id);
      hung.dispatchEvent(new Event("hung"));
      return { hang: true };
    },
    { keep: true },
  );
  await using stand = await Stand.start(site, model.server.url);
  log.write(`agents: a campaign that is killed in ${KILLED_IN.join(", ")}\n`);
  const campaign = await (async () => {
    let next = once(hung, "hung", { signal: site.signal });
    const id = await stand.submit(benchTarget());
    for (const _ of KILLED_IN) {
      await next;
      next = once(hung, "hung", { signal: site.signal });
      next.catch(() => undefined);
      await stand.kill();
      await stand.up();
    }
    return id;
  })();
  await stand.ended();
  if (kills.length !== KILLED_IN.length) throw new Error(`killed in ${kills.join(", ")} only`);
  const again = repeats(model.exchanges);
  for (const turn of again) log.write(`agents: paid twice: ${turn}\n`);
  const lost = (await stand.events(campaign)).filter(
    ({ fact }) => fact.type === "turn.settled" && fact.outcome.status === "failed" && fact.outcome.code === "lost",
  );
  return [
    row(`kill -9, ${kills.length} times: answered turns paid for again`, again.length, "turns", "<= 0"),
    row("kill -9: turns without an answer, asked again", lost.length, "turns", ""),
  ];
}
