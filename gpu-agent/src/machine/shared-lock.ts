import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Hold } from "./machine-lock.ts";

/** Whoever is free at once says so within milliseconds. */
const WAITS_AFTER_MS = 200;

/**
 * The same once more for agents in containers that share a folder of their node and no network namespace: whoever locks the file has it. Held by flock(1) for as long as
 * its stdin is open, so that the kernel frees it however this process ends. Not passed on in the order of asking. Throws the signal's reason, or where there is no
 * flock or the file can't be made.
 */
export async function takeShared(flock: string, file: string, signal: AbortSignal, waits: () => void): Promise<Hold> {
  signal.throwIfAborted();
  const child = spawn(flock, ["--exclusive", file, "sh", "-c", "echo held; exec cat"], { stdio: ["pipe", "pipe", "pipe"] });
  const stop = (): void => void child.kill();
  const waiting = setTimeout(waits, WAITS_AFTER_MS);
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
  child.stdin.on("error", () => undefined);
  signal.addEventListener("abort", stop, { once: true });
  try {
    const held = once(child.stdout, "data").then(() => true);
    const ended = once(child, "close").then(() => false);
    if (await Promise.race([held, ended])) return { release: () => void child.stdin.end() };
    signal.throwIfAborted();
    throw new Error(`${file} could not be locked: ${said.trim() || "flock ended"}`);
  } finally {
    clearTimeout(waiting);
    signal.removeEventListener("abort", stop);
  }
}
