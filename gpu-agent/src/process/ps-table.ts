import { execFileSync } from "node:child_process";
import { TICKS_PER_SECOND, type ProcessTable, type ProcStat } from "./process-table.ts";

/** A line of `ps`, with what is looked up by the way. */
export interface PsRow extends ProcStat {
  readonly uid: number;
  /** The command's words, and behind them those of its environment. */
  readonly words: readonly string[];
}

const COLUMNS = ["pid", "ppid", "pgid", "ruid", "state", "rss", "time", "lstart", "command"];
const FORMAT = COLUMNS.map((name) => `${name}=`).join(",");
/** A thousand processes with their environments are some megabytes. */
const MAX_BYTES = 64 * 2 ** 20;
const ASK_MS = 10_000;

/**
 * macOS's table: what its `ps` prints; each look starts that program and waits for it. It tells no session (a group stands for it), no pid namespace, seconds for
 * the start, and no time of children that have ended. The environment is that of `-E`, which shows none of a program that Apple protects.
 */
export function psTable(program = "/bin/ps"): ProcessTable {
  const ask = (args: readonly string[]): PsRow[] => {
    const env = { LC_ALL: "C", TZ: "UTC", PATH: "/usr/bin:/bin" };
    const stdio = ["ignore", "pipe", "ignore"] as const;
    return parsePs(
      execFileSync(program, [...args, "-o", FORMAT], { env, stdio: [...stdio], encoding: "latin1", maxBuffer: MAX_BYTES, timeout: ASK_MS }),
    );
  };
  const read = (): PsRow[] => ask(["-axwwE"]);
  const wordsOf = (process: ProcStat): readonly string[] => (process as Partial<PsRow>).words ?? [];
  return {
    read,
    stat: (pid) => {
      try {
        return ask(["-wwE", "-p", String(pid)])[0] ?? null;
      } catch {
        // Its exit code 1: there is none.
        return null;
      }
    },
    uidOf: (process) => (process as Partial<PsRow>).uid ?? null,
    namespaceOf: () => null,
    hasEnvironment: (process, entry) => wordsOf(process).includes(entry),
    startedWith: (prefix) =>
      read()
        .filter(({ words }) => words.some((word) => word.startsWith(prefix)))
        .map(({ pid }) => pid),
  };
}

/** Reads what `ps -o` printed of these columns; what is no process (a heading) is left out, and what is not printed is NaN, "?" or empty. */
export function parsePs(text: string, columns: readonly string[] = COLUMNS): PsRow[] {
  return text.split("\n").flatMap((line): PsRow[] => {
    const words = line.trim().split(/\s+/);
    const found = new Map<string, string[]>();
    for (const name of columns) found.set(name, words.splice(0, name === "command" ? words.length : name === "lstart" ? 5 : 1));
    const number = (name: string): number => Number(found.get(name)?.[0] ?? NaN);
    if (!/^\d+$/.test(found.get("pid")?.[0] ?? "")) return [];
    return [
      {
        pid: number("pid"),
        ppid: number("ppid"),
        pgid: number("pgid"),
        session: number("pgid"),
        state: found.get("state")?.[0]?.slice(0, 1) ?? "?",
        ownTicks: secondsOf(found.get("time")?.[0] ?? "") * TICKS_PER_SECOND,
        childTicks: 0,
        startTicks: (Date.parse(`${found.get("lstart")?.join(" ") ?? ""} UTC`) / 1000) * TICKS_PER_SECOND,
        rssBytes: number("rss") * 1024,
        uid: number("ruid"),
        words: found.get("command") ?? [],
      },
    ];
  });
}

/** "113:46.26", minutes and seconds; also "2-03:04:05", as others print it. NaN for anything else. */
function secondsOf(time: string): number {
  const [, days = "0", hours = "0", minutes, seconds] = /^(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)$/.exec(time) ?? [];
  return minutes === undefined ? NaN : ((Number(days) * 24 + Number(hours)) * 60 + Number(minutes)) * 60 + Number(seconds);
}
