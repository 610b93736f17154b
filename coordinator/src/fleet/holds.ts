import { existsSync, readFileSync } from "node:fs";
import { Hold, keyOfWhere as keyOf, type Where } from "@vibeserve/shared";
import { z } from "zod";
import { writePrivate } from "../broker/principals.ts";
import { FOR_EVER } from "../schedule/board.ts";

/**
 * What people keep free of new work: yielded to production, drained for maintenance, quiet hours. A file beside the broker's, so that it outlives the coordinator.
 */
export interface HoldsDeps {
  file: string;
  /** Nothing new there until then; 0 lifts it. */
  hold: (where: Where, until: number, reason: string) => void;
  now: () => number;
}

const Stored = z.strictObject({ v: z.literal(1), holds: z.array(Hold) });
/** A daily window begins and ends on the minute. */
const LOOK_MS = 15_000;

export class FleetHolds implements AsyncDisposable {
  readonly #deps: HoldsDeps;
  readonly #timer: NodeJS.Timeout;
  #holds: Hold[];

  /** Throws where the file can't be read: devices that someone needs must not be taken by mistake. */
  constructor(deps: HoldsDeps) {
    this.#deps = deps;
    this.#holds = existsSync(deps.file) ? Stored.parse(JSON.parse(readFileSync(deps.file, "utf8"))).holds : [];
    this.#timer = setInterval(() => this.#apply(), LOOK_MS).unref();
    this.#apply();
  }

  list(): (Hold & { active: boolean })[] {
    const now = this.#deps.now();
    return this.#holds.map((hold) => ({ ...hold, active: activeUntil(hold, now) !== null }));
  }

  add(hold: Omit<Hold, "at">): void {
    this.#keep([...this.#holds, { ...hold, at: this.#deps.now() }]);
  }

  /** False: there is none on the very same devices. */
  lift(where: Where): boolean {
    const kept = this.#holds.filter((hold) => keyOf(hold.where) !== keyOf(where));
    if (kept.length === this.#holds.length) return false;
    this.#keep(kept);
    this.#deps.hold(where, 0, "");
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
  }

  #keep(holds: Hold[]): void {
    writePrivate(this.#deps.file, JSON.stringify({ v: 1, holds }, null, 2));
    this.#holds = holds;
    this.#apply();
  }

  /** Of several on the same devices the one that lasts longest counts. */
  #apply(): void {
    const now = this.#deps.now();
    const live = this.#holds.filter((hold) => hold.until === null || hold.until > now);
    for (const hold of this.#holds) if (!live.includes(hold)) this.#deps.hold(hold.where, 0, "");
    this.#holds = live;
    const longest = new Map<string, { hold: Hold; until: number }>();
    for (const hold of live) {
      const until = activeUntil(hold, now) ?? 0;
      if (until >= (longest.get(keyOf(hold.where))?.until ?? 0)) longest.set(keyOf(hold.where), { hold, until });
    }
    for (const { hold, until } of longest.values()) this.#deps.hold(hold.where, until, `${WORDS[hold.purpose]}: ${hold.reason}`);
  }
}

const WORDS = { yield: "yielded to production", drain: "drained for maintenance", quiet: "quiet hours" } as const;

/** Until when a hold that is active now lasts, ms; null: it is not. */
export function activeUntil({ until, daily }: Pick<Hold, "until" | "daily">, now: number): number | null {
  const last = until ?? FOR_EVER;
  if (last <= now) return null;
  if (!daily) return last;
  const at = (time: string, days: number): number => {
    const [hours = 0, minutes = 0] = time.split(":").map(Number);
    const date = new Date(now);
    return new Date(date.getFullYear(), date.getMonth(), date.getDate() + days, hours, minutes).getTime();
  };
  // Yesterday's window may still be open.
  for (const day of [-1, 0]) {
    const from = at(daily.from, day);
    const to = at(daily.to, daily.from < daily.to ? day : day + 1);
    if (from <= now && now < to) return Math.min(to, last);
  }
  return null;
}
