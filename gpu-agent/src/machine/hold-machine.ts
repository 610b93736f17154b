import { readConfig } from "../config.ts";
import { machineLockName, takeMachine } from "./machine-lock.ts";

/**
 * `gpu-agent hold-machine --who TEXT [agent options]`: has the machine until its stdin closes, so that a process that is no agent (the coordinator, for a
 * coding CLI) can have it, and lets go whatever becomes of that. Prints "waits: HOLDER" and "held", a line each.
 */
export async function holdMachine(argv: readonly string[]): Promise<number> {
  const at = argv.indexOf("--who");
  const who = argv[at + 1] ?? "someone";
  const { config } = readConfig(argv.filter((_, i) => at < 0 || i < at || i > at + 1));
  const closed = new AbortController();
  process.stdin.on("close", () => closed.abort()).resume();
  const name = config.machineLock ?? machineLockName();
  const say = (line: string): void => void process.stdout.write(`${line}\n`);
  try {
    const hold = await takeMachine(name, {
      who,
      signal: closed.signal,
      waits: (holder) => say(`waits: ${holder}`),
    });
    say("held");
    await new Promise<void>((resolve) => {
      if (closed.signal.aborted) resolve();
      else closed.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    hold.release();
  } catch (error) {
    if (!closed.signal.aborted) throw error;
  }
  return 0;
}
