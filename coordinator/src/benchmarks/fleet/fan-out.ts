import { randomFillSync } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createUser } from "@nats-io/nkeys";
import { ArtifactStore } from "../../artifact/artifact-store.ts";
import { childEnvironment } from "../../config.ts";
import { SupervisedChild } from "../../process/child.ts";
import { row, type Row } from "../bench-report.ts";
import { within, type LaneSite } from "../lane.ts";

/** That the agents are in. */
const PROCESSES = 2;

interface Done {
  bytes: number;
  seconds: number;
}

/**
 * One artifact to many agents, each with its own key, connection and cache on disk. What the broker sent is what came over their connections, overhead included.
 * The floor is a raw copy: the same bytes in messages of the same size from this process through the same broker to as many subscribers, written to disk and
 * synced, and nothing hashed or stored at the broker.
 */
export async function fanOut(site: LaneSite, bytes: number, agents: number): Promise<Row[]> {
  const folder = join(site.settings.data, "fan-out");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  try {
    const content = randomFillSync(Buffer.alloc(bytes));
    const { digest } = await (await ArtifactStore.open(site.nc)).put(content);
    const fetched = await fetchAll(site, folder, digest, bytes, agents);
    const copied = await copyAll(site, folder, content, agents);
    const [sent, seconds] = [fetched.reduce((sum, d) => sum + d.bytes, 0), Math.max(...fetched.map((d) => d.seconds))];
    const of = `${Math.round(bytes / 1e6)} MB to ${agents} agents`;
    return [
      row(`artifact fan-out, ${of}: bytes sent / one copy per agent`, sent / (agents * bytes), "×", "<= 1.3"),
      row(`artifact fan-out, ${of}: time`, seconds, "s", ""),
      row("floor: raw copy of the same bytes through the same broker", copied, "s", ""),
      row("artifact fan-out / floor", seconds / copied, "×", ""),
    ];
  } finally {
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function fetchAll(site: LaneSite, folder: string, digest: string, bytes: number, agents: number): Promise<Done[]> {
  const ids = Array.from({ length: agents }, (_, i) => `fan-${i}`);
  for (const id of ids) {
    const key = createUser();
    if (!(await site.broker.enroll({ agentId: id, publicKey: key.getPublicKey(), pools: ["bench"] })))
      throw new Error(`agent ${id} could not be enrolled`);
    await writeFile(join(folder, `${id}.nk`), key.getSeed(), { mode: 0o600 });
  }
  const script = join(site.settings.root, "gpu-agent/src/artifact/fetch-child.ts");
  return inChildren(
    site,
    script,
    split(ids).map((mine) => [site.broker.url, digest, String(bytes), folder, ...mine]),
  );
}

/** Messages that may be under way: their acknowledgements keep the broker from dropping a subscriber as slow. */
const WINDOW = 16;
const CHUNK_BYTES = 512 * 1024;
const SUBJECT = "bench.copy";

async function copyAll(site: LaneSite, folder: string, content: Buffer, agents: number): Promise<number> {
  const { nc, signal } = site;
  const files = split(Array.from({ length: agents }, (_, i) => join(folder, `copy-${i}`)));
  const nats = join(site.settings.data, "nats");
  const chunks = Math.ceil(content.length / CHUNK_BYTES);
  let acknowledged = 0;
  let wake: () => void = () => undefined;
  const acks = nc.subscribe(`${SUBJECT}.ack`, {
    callback: () => {
      acknowledged++;
      wake();
    },
  });
  const until = async (count: number): Promise<void> => {
    while (acknowledged < count) await within(new Promise<void>((resolve) => (wake = resolve)), "the raw copy goes on", signal);
  };
  let from = 0;
  const publish = async (): Promise<void> => {
    from = performance.now();
    for (let i = 0; i < chunks; i++) {
      await until((i - WINDOW + 1) * agents);
      nc.publish(SUBJECT, content.subarray(i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES));
    }
  };
  try {
    const script = join(import.meta.dirname, "copy-child.ts");
    await inChildren(
      site,
      script,
      files.map((mine) => [site.broker.url, nats, SUBJECT, String(chunks), ...mine]),
      publish,
    );
    return (performance.now() - from) / 1000;
  } finally {
    acks.unsubscribe();
  }
}

/** Starts them, tells all to begin when all are ready, and gives what each has to say at its end. */
async function inChildren(
  site: LaneSite,
  script: string,
  argvs: string[][],
  begin: () => Promise<void> = async () => undefined,
): Promise<Done[]> {
  const { settings, log, signal } = site;
  const children = argvs.map((argv, i) => {
    const [ready, done] = [Promise.withResolvers<undefined>(), Promise.withResolvers<Done>()];
    const child = new SupervisedChild({
      ...{ name: "fan-out", command: process.execPath, env: childEnvironment({}), pidFile: null, log },
      args: [script, ...argv],
      logFile: join(settings.data, "logs", `fan-out-${i}.out`),
      onMessage: (message) => (message === "ready" ? ready.resolve(undefined) : done.resolve(message as Done)),
    });
    child.start();
    return { child, ready: ready.promise, done: done.promise };
  });
  try {
    await within(Promise.all(children.map((c) => Promise.race([c.ready, c.child.failed]))), "the agents connect", signal);
    for (const { child } of children) child.send("go");
    await begin();
    return await within(Promise.all(children.map((c) => Promise.race([c.done, c.child.failed]))), "all have all of it", signal, LIMIT_MS);
  } finally {
    await Promise.all(children.map((c) => c.child.stop(2_000)));
  }
}

/** 4 GB to a slow disk. */
const LIMIT_MS = 600_000;

const split = <T>(all: readonly T[]): T[][] => Array.from({ length: PROCESSES }, (_, p) => all.filter((_x, i) => i % PROCESSES === p));
