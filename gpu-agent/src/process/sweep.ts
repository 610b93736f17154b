import { readdirSync, readFileSync } from "node:fs";

/** In the environment of everything that an agent runs untrusted: `<tag of the agent>-<run>`. */
export const MARK_NAME = "VIBESERVE_RUN";

/**
 * Kills what an earlier life of this agent left running. bubblewrap takes its processes along when the agent dies; without it, what left its session stays,
 * and is recognised by what it inherited. Returns how many.
 */
export function killLeftovers(tag: string): number {
  const prefix = `${MARK_NAME}=${tag}-`;
  let killed = 0;
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      if (
        !readFileSync(`/proc/${pid}/environ`, "latin1")
          .split("\0")
          .some((entry) => entry.startsWith(prefix))
      )
        continue;
      process.kill(pid, "SIGKILL");
      killed++;
    } catch {
      // Gone, or another user's: not ours.
    }
  }
  return killed;
}
