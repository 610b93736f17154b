import type { JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { eventLoopCheck, STREAMS, type Check } from "@vibeserve/shared";
import type { StoreGuard } from "../broker/store-guard.ts";
import type { CampaignRegistry } from "../campaign/registry.ts";
import { lockHolder } from "../process/lock.ts";
import { inTime } from "../process/within.ts";
import type { Scheduler } from "../schedule/scheduler.ts";

/**
 * What the probes of a coordinator look at.
 *   livez: what a restart cures: this process itself. Never what it depends on: a broker that is away or a full disk would make it restart again and again, which
 *     cures neither, reads all logs anew each time and, where it supervises the broker itself, cuts off agents that are at work.
 *   readyz: livez, and whether it can do its work now: the broker answers and stores, its disk has room, all logs are read.
 *   startupz: whether it has begun. Logs are not among it: a long past takes its time, and campaigns go on one by one meanwhile.
 */
export interface Probes {
  livez: () => readonly Check[];
  readyz: () => readonly Check[];
  startupz: () => readonly Check[];
}

/** What a coordinator that has begun lets be looked at. */
export interface Checked {
  nc: NatsConnection;
  jsm: { streams: Pick<JetStreamManager["streams"], "info"> };
  store: Pick<StoreGuard, "look" | "stalledMs">;
  campaigns: Pick<CampaignRegistry, "unread">;
  scheduler: Pick<Scheduler, "wakeAt">;
}

/** Whoever keeps the holds looks every 15 s. */
const OVERDUE_MS = 60_000;

/** lockFile: names this process while it may write to the data folder. coordinator: null until it has begun. */
export function probes(lockFile: string, coordinator: () => Checked | null, now: () => number = Date.now): Probes {
  const eventLoop = eventLoopCheck();
  const lock: Check = {
    name: "lock",
    look: () => {
      const pid = lockHolder(lockFile)?.pid;
      if (pid === process.pid) return null;
      return `${lockFile} names ${pid === undefined ? "nobody that lives" : `process ${pid}`}, not this one, ${process.pid}: another coordinator may write here; end one of them`;
    },
  };
  const started: Check = {
    name: "started",
    look: () => (coordinator() ? null : "it has not begun yet: broker, streams, agents; see logs/coordinator.log"),
  };
  const of = (name: string, look: (c: Checked) => string | null | Promise<string | null>): Check[] => {
    const c = coordinator();
    return c ? [{ name, look: () => look(c) }] : [];
  };
  const scheduler = () =>
    of("scheduler", (c) => {
      const lateMs = now() - (c.scheduler.wakeAt() ?? Infinity);
      return lateMs > OVERDUE_MS ? `a hold ended ${Math.round(lateMs / 1000)} s ago and nobody has looked what may start since` : null;
    });
  const livez = () => [eventLoop, lock, ...scheduler()];
  return {
    livez,
    startupz: () => [started, lock],
    readyz: () => [
      ...livez(),
      started,
      ...of("broker", brokerAnswers),
      ...of("store", (c) => c.store.look() ?? leaderThere(c)),
      ...of("logs", ({ campaigns: { unread } }) =>
        unread > 0 ? `the logs of ${unread} campaigns are still to be read; each goes on as soon as its own is` : null,
      ),
    ],
  };
}

/** Below the limit of a check, so that its own words are heard. */
const ANSWER_MS = 700;

async function brokerAnswers({ nc }: Checked): Promise<string | null> {
  if (nc.isClosed()) return "its connection was closed for good: restart this coordinator";
  const late = `no answer in ${ANSWER_MS} ms from ${nc.getServer()}: is it up, and does the network let it through? Redialling; see its log`;
  await inTime(nc.flush(), ANSWER_MS, () => new Error(late));
  return null;
}

/** Whether a store would be taken, though nobody tries to: a cluster without a majority has no leader of the log of events. */
async function leaderThere({ jsm }: Checked): Promise<string | null> {
  const lost = "bring a majority of the broker's servers back";
  const asked = jsm.streams.info(STREAMS.events).then(
    ({ cluster }) => (cluster && !cluster.leader ? `the log of events has no leader: ${lost}` : null),
    (error: unknown) => `the log of events is not there (${error instanceof Error ? error.message : String(error)}): ${lost}`,
  );
  return inTime(asked, ANSWER_MS, () => new Error(`nobody says in ${ANSWER_MS} ms who leads the log of events: ${lost}`));
}
