import { createConnection, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { isRecord, parseJson } from "@vibeserve/shared";
import { machineDigest } from "./machine-id.ts";

/**
 * One measurement, build or coding CLI a machine, whoever runs it: the holder listens on an abstract unix socket, whose name the kernel gives to one process and
 * frees when that ends, however it ends. Who waits is connected to the holder.
 *   K1. At most one process of a network namespace holds a name at a time.
 *   K2. It is passed on in the order of asking, and who passed it on does not take it back at once; one who works in the background comes last, and is told when anyone waits.
 *   K3. When a holder dies, who waits is told by its own connection, and asks again.
 * Only Linux has such sockets; elsewhere one agent a machine excludes its own jobs from each other, and nothing is taken here. Any process of the network
 * namespace can hold it (denial, never a wrong figure); a sandbox has a namespace of its own.
 */
export interface TakeOptions {
  /** For those who wait: "bench of campaign c1 (agent cpu-a)". */
  readonly who: string;
  /** Ends the waiting, with its reason; not the holding. */
  readonly signal: AbortSignal;
  /** Comes after all others, and should let go when `wanted` is called. */
  readonly background?: boolean;
  /** It has to wait; the holder's name. Called again when that changes. */
  readonly waits?: (holder: string) => void;
  /** Somebody else waits. May be called before takeMachine returns, and more than once. */
  readonly wanted?: () => void;
}

export interface Hold {
  /** Passes the machine on. Idempotent. */
  release(): void;
}

/** Who is next in line has bound the name long before the one behind it tries: binding takes under a millisecond. */
const STEP_MS = 20;
/** A process that has just passed it on leaves the others this much time to take it, also on a busy machine; else its next job would always be first. */
const COURTESY_MS = 150;
/** Name → until when this process does not ask for it (performance.now()). */
const courtesy = new Map<string, number>();
/** A stranger's connection that says nothing is no one who waits. */
const MAX_LINE = 1_000;

/** The name for this machine; tests and operators may have others. */
export const machineLockName = (): string => `vibeserve-machine-${machineDigest().slice(0, 32)}`;

export async function takeMachine(name: string, options: TakeOptions): Promise<Hold> {
  if (process.platform !== "linux") return { release: () => undefined };
  const ticket = { who: options.who, at: options.background === true ? Number.MAX_SAFE_INTEGER : Date.now() };
  const politeMs = (courtesy.get(name) ?? 0) - performance.now();
  if (politeMs > 0) await sleep(politeMs, undefined, { signal: options.signal }).catch(() => options.signal.throwIfAborted());
  for (;;) {
    options.signal.throwIfAborted();
    const server = await bind(`\0${name}`);
    if (server !== null) return hold(name, server, options);
    await standInLine(`\0${name}`, ticket, options);
  }
}

/** Null: somebody has it. */
async function bind(path: string): Promise<Server | null> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(null);
      else reject(error);
    });
    server.listen({ path }, () => resolve(server));
  });
}

function hold(name: string, server: Server, { who, wanted }: TakeOptions): Hold {
  const line = new Map<Socket, number>();
  const connected = new Set<Socket>();
  server.removeAllListeners("error");
  server.on("error", () => undefined);
  server.on("connection", (socket) => {
    connected.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => {
      connected.delete(socket);
      line.delete(socket);
    });
    socket.write(`${JSON.stringify({ holder: who })}\n`);
    onLine(socket, (message) => {
      line.set(socket, typeof message["at"] === "number" ? message["at"] : Number.MAX_SAFE_INTEGER);
      wanted?.();
    });
  });
  let held = true;
  return {
    release: () => {
      if (!held) return;
      held = false;
      // The name is free from here on; who is connected still hears in which order to ask for it.
      server.close();
      if (connected.size > 0) courtesy.set(name, performance.now() + COURTESY_MS);
      const order = [...line].sort(([, a], [, b]) => a - b).map(([socket]) => socket);
      for (const socket of connected) socket.end(`${JSON.stringify({ turn: Math.max(0, order.indexOf(socket)) })}\n`);
    },
  };
}

/** Resolves when it is time to ask again: the holder passed it on, or is gone. Throws the signal's reason. */
async function standInLine(path: string, ticket: { who: string; at: number }, { signal, waits }: TakeOptions): Promise<void> {
  const socket = createConnection({ path });
  const told: { turn: number | null } = { turn: null };
  await new Promise<void>((resolve) => {
    const stop = (): void => void socket.destroy();
    signal.addEventListener("abort", stop, { once: true });
    socket.once("connect", () => socket.write(`${JSON.stringify(ticket)}\n`));
    onLine(socket, (message) => {
      if (typeof message["holder"] === "string") waits?.(message["holder"]);
      if (typeof message["turn"] === "number") told.turn = message["turn"];
    });
    socket.on("error", () => undefined);
    socket.once("close", () => {
      signal.removeEventListener("abort", stop);
      resolve();
    });
  });
  signal.throwIfAborted();
  // Nobody said whose turn it is where the holder died: then whoever comes first.
  await sleep((told.turn ?? Math.random()) * STEP_MS, undefined, { signal });
}

function onLine(socket: Socket, take: (message: Record<string, unknown>) => void): void {
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("utf8");
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    if (text.length > MAX_LINE) socket.destroy();
    for (const line of lines) {
      const message = parseJson(line);
      if (isRecord(message)) take(message);
      else socket.destroy();
    }
  });
}
