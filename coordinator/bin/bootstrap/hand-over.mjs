import { spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import { whenNpmsShellEnds } from "./npm-shell.mjs";

/** One Ctrl-C reaches this process more than once (the terminal signals its whole group, and npm forwards on top): within this span they are one. */
const samePressMs = 400;

/** Exit code of a process that a signal ended, as shells report it. */
const signalNumbers = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 };

/**
 * Runs `node ...args` in this process's place: same terminal, same exit code, signals passed on once each. Never returns.
 * The child leads a session of its own, so that a terminal's Ctrl-C reaches it through here alone, and never its broker and agents,
 * which it stops in its own order. It holds an IPC channel: when this process is killed outright, vibeserve.mjs sees it close and stops.
 */
export function handOver(root, node, args) {
  return new Promise((_, reject) => {
    const path = [join(root, "node_modules/.bin"), process.env.PATH ?? ""].join(delimiter);
    const child = spawn(node, args, {
      stdio: ["inherit", "inherit", "inherit", "ipc"],
      detached: true,
      env: { ...process.env, PATH: path },
    });
    child.once("error", reject);
    child.once("exit", (code, signal) => process.exit(code ?? 128 + (signalNumbers[signal] ?? 0)));
    let told = false;
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
      passOn(child, signal, samePressMs);
      process.once(signal, () => (told = true));
    }
    passOn(child, "SIGWINCH", 0);
    // One that was told to stop is stopping, and a second word would kill it.
    whenNpmsShellEnds(() => told || child.kill("SIGTERM"));
  });
}

function passOn(child, signal, onceWithinMs) {
  let last = -Infinity;
  process.on(signal, () => {
    const now = performance.now();
    if (now - last < onceWithinMs) return;
    last = now;
    child.kill(signal);
  });
}
