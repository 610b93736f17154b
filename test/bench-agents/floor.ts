import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Stand } from "./stand.ts";

const LIMIT_MS = 60_000;

/**
 * What a turn must cost at the least: the same client library streams an answer of one word, and two messages are stored one after the other on the same broker,
 * which syncs each to disk. In a process of its own, as the coordinator is; timed by the scripted server as turns `floor:N`.
 */
export async function askFloor(stand: Stand, model: string, from: number, requests: number, signal: AbortSignal): Promise<void> {
  const { url, folder } = stand.broker;
  const args = [join(import.meta.dirname, "floor-child.ts"), model, url, folder, String(from), String(requests)];
  await promisify(execFile)(process.execPath, args, { signal, timeout: LIMIT_MS });
}
