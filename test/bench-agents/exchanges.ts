/** A request to a model and its answer. Times in ms by one monotonic clock. */
export interface Exchange {
  /** Which campaign, as its prompts name it. */
  campaign: string;
  turn: TurnName;
  /** The whole request was here. */
  at: number;
  /** The last byte of a whole answer was written; null: it never was. */
  sentAt: number | null;
}

/** A turn's id, taken apart: `implementer:e1.0.5.2` is the second try of turn 5 of a conversation about e1; `plan:0.3.1.1` plans what comes after 3 experiments. */
export interface TurnName {
  role: string;
  /** Experiments before it, for a planner's; else the number of its experiment. */
  experiment: number;
  /** All of the id but the ordinal and the try. */
  conversation: string;
  n: number;
}

/** Throws on what is no turn's id. */
export function turnName(id: string): TurnName {
  const plan = /^plan:\d+\.(\d+)\.(\d+)\.\d+$/.exec(id);
  if (plan) return { role: "planner", experiment: Number(plan[1]), conversation: `plan:${plan[1] ?? ""}`, n: Number(plan[2]) };
  const talk = /^(([a-z]+):e(\d+)\.\d+)\.(\d+)\.\d+$/.exec(id);
  if (!talk) throw new Error(`no turn's id: ${id}`);
  const [, conversation = "", role = "", experiment, n] = talk;
  return { role, experiment: Number(experiment), conversation, n: Number(n) };
}

export interface Overhead {
  /** Of the turn that was answered. */
  turn: TurnName;
  /** When its answer was whole. */
  sentAt: number;
  /** From there to the arrival of the next request of the same conversation. */
  ms: number;
}

const conversationOf = ({ campaign, turn }: Exchange): string => `${campaign} ${turn.conversation}`;

/** What lies between the turns of each conversation: nothing but the coordinator, where no job of a device is called. */
export function overheads(exchanges: readonly Exchange[]): Overhead[] {
  return [...Map.groupBy(exchanges, conversationOf).values()].flatMap((turns) =>
    turns.flatMap(({ turn, sentAt }) => {
      const next = turns.find((e) => e.turn.n === turn.n + 1);
      return sentAt === null || !next ? [] : [{ turn, sentAt, ms: next.at - sentAt }];
    }),
  );
}

/** Turns that were asked again after their whole answer had been sent: each was paid for twice. */
export function repeats(exchanges: readonly Exchange[]): string[] {
  const same = Map.groupBy(exchanges, (e) => `${conversationOf(e)}.${e.turn.n}`);
  return [...same].filter(([, tries]) => tries.some((a) => tries.some((b) => a.sentAt !== null && b.at > a.sentAt))).map(([name]) => name);
}

/** When the first of these conversations was asked for the last time: from there on fewer are under way. */
export const tailFrom = (exchanges: readonly Exchange[]): number =>
  Math.min(...[...Map.groupBy(exchanges, conversationOf).values()].map((turns) => Math.max(...turns.map((e) => e.at))));
