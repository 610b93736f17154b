import { join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { z } from "zod";
import { connectBus, type Credential } from "../../bus/connect.ts";
import type { Settings } from "../../config.ts";
import type { LogBus } from "../../log/event-log.ts";
import { readJson } from "../../process/read-json.ts";
import { leftContext, ownCredential } from "../own-credential.ts";
import { messageOf } from "../../process/message-of.ts";
import { readText } from "./check.ts";

/** How the broker is reached from here: as the coordinator where its keys are, as the agent on a node. */
export type Dialled =
  /** Nobody says where a broker would be. */
  | { kind: "none"; why: string }
  | { kind: "failed"; servers: string[]; ca: string | undefined; why: string }
  | { kind: "open"; servers: string[]; ca: string | undefined; bus: LogBus; ms: number; close: () => Promise<void> };

/** `<data>/membership.json` of a node, as far as it is needed here. */
const Membership = z.looseObject({ servers: z.array(z.string()).min(1), ca: z.string().nullable() });

/** With the coordinator's own rights, by the context that it leaves while it runs. Never rejects. */
export async function dialCoordinator(settings: Pick<Settings, "data" | "nats">): Promise<Dialled> {
  const context = settings.nats ?? leftContext(settings.data);
  if (context === null) return { kind: "none", why: `no coordinator runs in ${settings.data}` };
  try {
    return await dial(await ownCredential(settings, context, "coordinator"));
  } catch (error) {
    return { kind: "none", why: `the coordinator's keys can't be read: ${messageOf(error)}` };
  }
}

/** With the agent's own key, as that id. Never rejects. */
export async function dialAgent(data: string, agentId: string): Promise<Dialled> {
  const membership = Membership.safeParse(readJson(join(data, "membership.json")));
  const seed = readText({ root: "" }, join(data, "agent.nk"));
  if (!membership.success || seed === null)
    return { kind: "none", why: `${data} has no membership.json or agent.nk: it has joined no coordinator` };
  const { servers, ca, ...more } = membership.data;
  return dial({ ...more, servers, ca: ca ?? undefined, seed, principal: agentId });
}

async function dial(credential: Credential): Promise<Dialled> {
  const startedAt = performance.now();
  const { servers, ca } = credential;
  try {
    const nc = await connectBus(credential);
    await nc.flush();
    const bus = { nc, js: jetstream(nc), jsm: await jetstreamManager(nc, { checkAPI: false }) };
    return { kind: "open", servers, ca, bus, ms: performance.now() - startedAt, close: () => nc.close() };
  } catch (error) {
    return { kind: "failed", servers, ca, why: messageOf(error) };
  }
}
