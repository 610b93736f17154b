import { spawn } from "node:child_process";
import { join } from "node:path";
import { agentEnvironment } from "../../config.ts";
import type { Provider } from "../provider.ts";

/** Has this machine to itself until released, among the agents that measure on it. Waits as long as it takes; rejects with the signal's reason. */
export type HoldMachine = (who: string, signal: AbortSignal) => Promise<{ release(): void }>;

/**
 * The machine's lock is gpu-agent's, which is met on its command line: a child that holds it as long as its stdin is open, so it goes with this process. Where no
 * agent works on this machine nobody else asks for it. A child that ends without holding it is a fault of ours (`onError`), and the turn goes on without.
 */
export function holdByAgent(root: string, onError: (error: unknown) => void): HoldMachine {
  return async (who, signal) => {
    const argv = [join(root, "gpu-agent/src/main.ts"), "hold-machine", "--who", who];
    const child = spawn(process.execPath, argv, { stdio: ["pipe", "pipe", "ignore"], env: agentEnvironment() });
    child.stdin.on("error", () => undefined);
    const release = (): void => void child.stdin.end();
    const held = new Promise<void>((resolve) => {
      let text = "";
      child.stdout.on("data", (chunk: Buffer) => {
        text = (text + chunk.toString("utf8")).slice(-4096);
        if (/^held$/m.test(text)) resolve();
      });
      const ended = (how: string): void => {
        if (!signal.aborted) onError(new Error(`the machine is not held for ${who}: ${how}`));
        resolve();
      };
      child.once("error", (error) => ended(String(error)));
      child.once("exit", (code) => ended(`gpu-agent hold-machine ended with ${String(code)}`));
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
    await held;
    child.removeAllListeners("exit");
    if (signal.aborted) {
      release();
      signal.throwIfAborted();
    }
    return { release };
  };
}

/** Nothing is measured or built on this machine during a turn of the provider: a turn waits for the machine, and has it until the CLI calls a tool of ours or ends. */
export function withMachine(provider: Provider & AsyncDisposable, hold: HoldMachine): Provider & AsyncDisposable {
  return {
    ...provider,
    turn: async (request, signal) => {
      const machine = await hold(`${provider.name} of campaign ${request.campaign}`, signal);
      try {
        return await provider.turn(request, signal);
      } finally {
        machine.release();
      }
    },
  };
}
