import { randomInt } from "node:crypto";
import { readTable, realUid } from "../process/proc-table.ts";

/** systemd's range for dynamic users: nothing else gives them out, and they lie within the 65,536 that a container maps. */
const FIRST = 61_184;
const COUNT = 4_336;

let next = randomInt(COUNT);

/** A uid under which no process runs: two candidates can't signal or trace each other, and every process of one can be found. Root only. */
export function privateUid(): number {
  const used = new Set(readTable().map((p) => realUid(p.pid)));
  for (let i = 0; i < COUNT; i++) {
    next = (next + 1) % COUNT;
    if (!used.has(FIRST + next)) return FIRST + next;
  }
  throw new Error("every uid of the dynamic range is in use");
}
