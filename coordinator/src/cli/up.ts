import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import type { ClientContext, ListenAddress } from "@vibeserve/shared";
import { writePrivate } from "../broker/principals.ts";
import { Coordinator } from "../coordinator.ts";
import { loadSettings } from "../config.ts";
import type { Observer } from "../observe/observer.ts";
import { identityOf } from "../process/identity.ts";
import { readRelease, thisRelease, unfinishedFile, whyNot, writeRelease } from "../operate/release-file.ts";
import { acquireLock, LockHeldError } from "../process/lock.ts";
import { eventLogger, openLog, type EventLogger } from "../process/log-file.ts";
import { localContext } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { aborted, stopSignal } from "./stop-signal.ts";

/** Held while a coordinator runs in the data folder. */
export const upLock = (data: string): string => join(data, "up.lock");

/** Broker and coordinator in this process, until the signal aborts. */
export async function up(
  { settings: { data }, output, version }: Invocation,
  { listen, http }: { listen?: string; http?: string },
): Promise<void> {
  const settings = loadSettings({ data, ...listenOf(listen), ...(http === undefined ? {} : { http }) });
  const signal = stopSignal();
  // Started by another of our processes: it holds a channel to us, and its end is ours.
  const parent = process.channel ? identityOf(process.ppid) : null;
  const lock = hold(upLock(settings.data), "vibeserve up", parent);
  keepHeapSmall();
  try {
    mayTakeOver(settings.data, version);
    const toFile = eventLogger(openLog(settings.data, "coordinator", settings.logLevel, settings.logStdout));
    const log: EventLogger = (event, facts) => {
      toFile(event, facts);
      const { trouble } = facts;
      if (typeof trouble !== "string") return;
      // Whoever started us shows it to a person; without one it is ourselves.
      if (process.send) process.send({ kind: "trouble", message: trouble });
      else if (!settings.logStdout) output.say(trouble);
    };
    log("coordinator.starting", { version, data: settings.data });
    await using observer = settings.http && (await observe(settings.http, settings.data));
    if (observer) log("http.listening", { port: observer.port });
    await using coordinator = await Coordinator.start({ settings, version, log, signal, observer });
    const context: ClientContext = {
      v: 1,
      kind: "client",
      servers: coordinator.servers,
      ...(coordinator.broker.ca === undefined ? {} : { ca: coordinator.broker.ca }),
      seed: coordinator.broker.seeds.client,
      ...(coordinator.broker.claims.client === undefined ? {} : { claim: coordinator.broker.claims.client }),
      pid: process.pid,
      startedAt: Date.now(),
    };
    writeRelease(settings.data, version);
    writePrivate(localContext(settings), JSON.stringify(context, null, 2));
    log("coordinator.ready", { url: coordinator.broker.url });
    process.send?.({ kind: "ready" });
    output.answer(
      { v: 1, kind: "up", url: coordinator.broker.url, pid: process.pid, context: localContext(settings) },
      // Standard output is then read by a program, and the event of the same name is there.
      settings.logStdout ? "" : `coordinator ready: broker ${coordinator.broker.url}, pid ${process.pid}; Ctrl-C stops it`,
    );
    await aborted(signal);
    log("coordinator.stopping", {});
    rmSync(localContext(settings), { force: true });
  } finally {
    lock.release();
  }
}

/** "HOST:PORT", "[::]:PORT" or "HOST"; port 0: any free one. */
function listenOf(text: string | undefined): { host?: string; port?: number } {
  if (text === undefined) return {};
  const [, host, port] = /^\[?([A-Za-z0-9._-]+|[0-9a-fA-F:]+?)\]?(?::(\d{1,5}))?$/.exec(text) ?? [];
  if (host === undefined) throw new CliError(EXIT.badInput, `--listen ${text}: not HOST:PORT`);
  return { host, ...(port === undefined ? {} : { port: Number(port) || -1 }) };
}

/** What it needs is loaded only here. Throws CliError where it can't listen. */
async function observe(listen: ListenAddress, data: string): Promise<Observer> {
  const { Observer } = await import("../observe/observer.ts");
  try {
    return await Observer.open({ listen, lockFile: upLock(data) });
  } catch (error) {
    if (error instanceof Error && error.name === "HttpListenError") throw new CliError(EXIT.badInput, error.message);
    throw error;
  }
}

/**
 * A hundred conversations under way have some 60 MB alive, and each turn makes its whole prompt anew. Left to itself, V8 lets the heap of a process on a machine
 * with much memory grow to several times what is alive before it looks: 650 MB resident; with these about 340 (`npm run bench -- agents`). Both are read
 * whenever the heap would grow, so they may be set now that the process runs; the new space keeps the size that starting has given it.
 */
function keepHeapSmall(): void {
  setFlagsFromString("--heap-growing-percent=60");
  setFlagsFromString("--semi-space-growth-factor=1");
}

/** Throws CliError where a later release wrote the folder in a way that this one would misread. */
function mayTakeOver(data: string, version: string): void {
  if (existsSync(unfinishedFile(data)))
    throw new CliError(EXIT.badInput, `${data} holds a restore that did not end; empty it and restore again (docs/operations.md#restore)`);
  const before = readRelease(data);
  const why = before && whyNot(before, thisRelease(version));
  if (why) throw new CliError(EXIT.badInput, `${data}: ${why}`);
}

/** Throws CliError where another process works in the data folder. */
export function hold(lockFile: string, role: string, parent: ReturnType<typeof identityOf> = null): { release(): void } {
  try {
    return acquireLock(lockFile, role, parent);
  } catch (error) {
    if (error instanceof LockHeldError) throw new CliError(EXIT.badInput, error.message);
    throw error;
  }
}
