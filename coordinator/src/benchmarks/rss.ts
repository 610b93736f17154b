import { readFileSync } from "node:fs";

/** Resident memory of a process, in 10⁶ bytes; Linux only. Throws where there is no such process. */
export const rssMb = (pid: number): number =>
  (Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024) / 1e6;
