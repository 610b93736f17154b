/** Aborts at the first SIGINT, SIGTERM or SIGHUP; `again` runs at the second. That npm's shell has ended (number 0, coordinator/bin/vibeserve.mjs) is never the second: it may have ended of the first. */
export function stopSignal(again: () => void = () => process.exit(1)): AbortSignal {
  const controller = new AbortController();
  const heard = (_name: NodeJS.Signals, number: number) => {
    if (!controller.signal.aborted) controller.abort();
    else if (number !== 0) again();
  };
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, heard);
  return controller.signal;
}

/** Resolves when the signal aborts. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** stop aborts at the first signal; at the second, kill runs if it is set, and the process ends. */
export interface StartSignals {
  stop: AbortSignal;
  kill: (() => void) | null;
}

export function startSignals(): StartSignals {
  const stop = stopSignal(() => {
    signals.kill?.();
    process.exit(1);
  });
  const signals: StartSignals = { stop, kill: null };
  return signals;
}
