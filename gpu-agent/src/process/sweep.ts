import { PLATFORM } from "../platform.ts";

/** In the environment of everything that an agent runs untrusted: `<tag of the agent>-<run>`. */
export const MARK_NAME = "VIBESERVE_RUN";

/**
 * Kills what an earlier life of this agent left running. bubblewrap takes its processes along when the agent dies; without it, what left its session stays,
 * and is recognised by what it inherited. Returns how many.
 */
export function killLeftovers(tag: string, processes = PLATFORM.processes): number {
  let killed = 0;
  for (const pid of processes.startedWith(`${MARK_NAME}=${tag}-`)) {
    if (pid === process.pid) continue;
    try {
      process.kill(pid, "SIGKILL");
      killed++;
    } catch {
      // Gone, or another user's: not ours.
    }
  }
  return killed;
}
