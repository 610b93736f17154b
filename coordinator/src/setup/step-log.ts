/** Where the set-up's lines go, one call a line. */
export type Log = (line: string) => void;

/** How often a step that takes long is named again, so that a slow network does not look like a hang. */
const heartbeatMs = 10_000;

/**
 * Does one step and prints `set-up: what … ok (1.2 s)` when it is done; a note that the step returns is put behind. A failing step prints
 * nothing here: its error names it.
 */
export async function step<T>(log: Log, what: string, work: () => Promise<{ value: T; note?: string }>): Promise<T> {
  const started = performance.now();
  const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`;
  const heartbeat = setInterval(() => log(`set-up: ${what} … still going (${seconds()})`), heartbeatMs);
  try {
    const { value, note } = await work();
    log(`set-up: ${what} … ok (${seconds()})${note === undefined ? "" : `: ${note}`}`);
    return value;
  } finally {
    clearInterval(heartbeat);
  }
}
