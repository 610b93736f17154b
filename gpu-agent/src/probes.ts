import { once } from "node:events";
import { statfs } from "node:fs/promises";
import { createServer } from "node:http";
import { eventLoopCheck, pageAnswer, type Check, type ListenAddress, type Page } from "@vibeserve/shared";
import { ConfigError } from "./config-error.ts";

/** What an agent's readiness is made of; each is filled in as the agent comes to it. */
export interface Readiness {
  data: string;
  /** Asks the broker; undefined: it was never reached. */
  connected?: () => Promise<void>;
  /** Why the coordinator gives it nothing; null: it may. */
  registered?: () => string | null;
}

/** A build, its copy in the cache and a result in the spool need some 100 MB; with less than this nothing new should come. */
const MIN_FREE_BYTES = 512 * 2 ** 20;

/**
 * livez is about this process alone: a broker or coordinator that is away is waited for, and a restart would only throw away the job at work. readyz also says whether
 * the agent can take jobs. One without a sandbox can, those that run what ships with the product, and a rollout must not wait for what no restart brings. Answers GET and
 * HEAD on `listen` until the process ends, and keeps no process alive. Throws ConfigError. Returns the port.
 */
export async function answerProbes(listen: ListenAddress, agent: Readiness): Promise<number> {
  const loop = eventLoopCheck();
  const ready: Check[] = [
    { name: "connected", look: () => (agent.connected ? agent.connected().then(() => null) : "the broker was never reached; redialling") },
    {
      name: "registered",
      look: () => (agent.registered ? agent.registered() : "it has not joined yet: see its log, and `vibeserve agents`"),
    },
    { name: "disk", look: () => room(agent.data) },
  ];
  const pages = new Map<string, Page>([
    ["/livez", { checks: () => [loop] }],
    ["/readyz", { checks: () => [loop, ...ready] }],
  ]);
  const server = createServer({ requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 5_000 }, (request, response) => {
    void pageAnswer(request, pages).then(({ status, type, text }) =>
      response.writeHead(status, { "content-type": type }).end(request.method === "HEAD" ? undefined : text),
    );
  });
  server.maxConnections = 16;
  server.listen(listen.port, listen.host);
  try {
    await once(server, "listening");
  } catch (error) {
    throw new ConfigError(`gpu-agent: --http ${listen.host}:${listen.port}: ${error instanceof Error ? error.message : String(error)}`);
  }
  const address = server.unref().address();
  return typeof address === "object" && address ? address.port : listen.port;
}

async function room(data: string): Promise<string | null> {
  const { bavail, bsize } = await statfs(data);
  const free = bavail * bsize;
  return free < MIN_FREE_BYTES
    ? `${Math.floor(free / 2 ** 20)} MiB are free in ${data}, ${MIN_FREE_BYTES / 2 ** 20} are needed: make room, or lower --quota-gib`
    : null;
}
