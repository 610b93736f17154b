import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MessagesServer, textOf, type Asked, type Script, type ScriptBlock } from "../kit/messages-server.ts";
import { assess, call, decision, implement, submit, verdict } from "../kit/scripted-model.ts";
import { turnName, type Exchange, type TurnName } from "./exchanges.ts";

/** The installation that the bench measures: this checkout. */
export const ROOT = join(import.meta.dirname, "../..");

/** What a campaign's models do: experiments one after another, each of so many turns of its implementer, the last of which hands in or gives up. */
export interface Course {
  experiments: readonly { turns: number; handsIn: boolean }[];
  /** Local calls of an implementer's turn. */
  work: (n: number) => ScriptBlock[];
}

/** Sources as an implementer meets them. */
const CORE = readdirSync(join(ROOT, "stacks/cpu/core")).map((name) => `core/${name}`);
const source = readFileSync(join(ROOT, "stacks/cpu/bindings/linear/q4-int8.cpp"), "utf8");
const said = (n: number) => ({ text: `Step ${n}: I look at how the rows are laid out, then change one loop and see what is read twice.` });

/** As in a good experiment: looks round, reads a source of the core in full (up to 16 kB) and writes one of 80 lines. */
export const fullTurn = (n: number): ScriptBlock[] => [
  said(n),
  call("list", { folder: n % 4 === 1 ? "" : "seed" }, `toolu_${n}_1`),
  call("read", { path: CORE[n % CORE.length] }, `toolu_${n}_2`),
  call("write", { path: "seed/linear.cpp", content: `// step ${n}\n${source.split("\n").slice(0, 80).join("\n")}\n` }, `toolu_${n}_3`),
];

/** What a model says in a second: some 80 tokens. */
export const shortTurn = (n: number): ScriptBlock[] => [
  said(n),
  call("read", { path: CORE[n % CORE.length], first: 1, count: 120 }, `toolu_${n}_1`),
  call("write", { path: "seed/notes.h", content: `// step ${n}\n${"// one more line of notes\n".repeat(6)}` }, `toolu_${n}_2`),
];

export function answerOf({ role, experiment, n }: TurnName, { experiments, work }: Course): Script {
  switch (role) {
    case "planner":
      return experiment < experiments.length ? implement({ claim: `idea ${experiment + 1}: rows are read once` }) : decision({});
    case "judge":
      return { blocks: n === 1 ? [call("diff", {}), call("list", { folder: "seed" })] : verdict("pass") };
    case "evaluator":
      return { blocks: n === 1 ? [call("diff", { path: "seed/linear.cpp" })] : assess() };
  }
  const of = experiments[experiment - 1];
  if (!of) throw new Error(`no experiment ${experiment} is in the script`);
  if (n < of.turns) return { blocks: work(n) };
  return { blocks: [submit(of.handsIn ? {} : { declared: "needs-debugging", nextStep: "half of it" })] };
}

/** A scripted provider whose exchanges are kept, in the order of their arrival; their prompts only where `keep` says so. */
export interface Model extends AsyncDisposable {
  server: MessagesServer;
  exchanges: Exchange[];
}

/** `answer` is asked for each turn; the floor's requests are answered with a word, after `floorMs` (default: at once). */
export async function startModel(
  answer: (exchange: Exchange, asked: Asked) => Script | Promise<Script>,
  { keep, floorMs = 0 }: { keep: boolean; floorMs?: number },
): Promise<Model> {
  const exchanges: Exchange[] = [];
  const server = await MessagesServer.start((asked) => {
    const id = String(asked.headers["x-vibeserve-turn"] ?? "");
    const turn = id.startsWith("floor") ? floorTurn(id) : turnName(id);
    const exchange: Exchange = { campaign: campaignOf(asked), turn, at: asked.at, sentAt: null };
    exchanges.push(exchange);
    void asked.sent.then((at) => (exchange.sentAt = at));
    // A hundred conversations' prompts would be most of this process's memory.
    if (!keep) server.asked.length = 0;
    if (turn.role !== "floor") return answer(exchange, asked);
    return floorMs === 0 ? { reply: "yes" } : sleep(floorMs, { reply: "yes" });
  });
  return { server, exchanges, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

const floorTurn = (id: string): TurnName => ({ role: "floor", experiment: 0, conversation: "floor", n: Number(id.split(":")[1]) });

/** Each campaign's target has a model of its own name, which all prompts but the floor's tell. */
const campaignOf = ({ body }: Asked): string => /\bmodel (bench-\d+)/i.exec(textOf(body.messages[0]))?.[1] ?? "";
