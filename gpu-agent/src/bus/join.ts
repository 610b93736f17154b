import { NoRespondersError, RequestError, TimeoutError, type NatsConnection } from "@nats-io/transport-node";
import { CodecError, decode, encode, JoinReply, JoinRequest, subjects, type AgentInfo, type JoinProof } from "@vibeserve/shared";
import { setTimeout as sleep } from "node:timers/promises";
import { connectBus } from "./connect-bus.ts";
import type { Identity } from "./identity.ts";

/** The coordinator says no, for good: started again it would hear the same. Exit code 77 (EX_NOPERM), for service managers that restart what ends. */
export class RefusedError extends Error {
  readonly exitCode = 77;
  constructor(agentId: string, reason: string) {
    super(`the coordinator refuses agent ${agentId}: ${reason}`);
    this.name = "RefusedError";
  }
}

export interface JoinDeps {
  servers: readonly string[];
  ca: string | null;
  /** NKey seed of role `joiner`. */
  joiner: string;
  /** The joiner's claim on a cluster; absent: the broker needs none. */
  claim?: string | undefined;
  info: AgentInfo;
  identity: Identity;
  /** Made anew for each question: a service account's token is replaced while it waits. */
  proof: () => JoinProof;
  log: { info(facts: object, text: string): void; warn(facts: object, text: string): void };
}

const ANSWER_MS = 10_000;
/** A person approves; a joiner that waits costs the coordinator one small request in this time. */
const ASK_AGAIN_MS = 5_000;

/** What it is let in with: pools to work in, and on a cluster its claim. */
export type Admission = Pick<Extract<JoinReply, { kind: "join.approved" }>, "pools" | "claim">;

/** Asks to come in until the answer is yes. Throws RefusedError or PlaintextError. */
export async function join(deps: JoinDeps): Promise<Admission> {
  const { info, log } = deps;
  const nc = await connectBus(
    { servers: deps.servers, ca: deps.ca, seed: deps.joiner, claim: deps.claim, principal: "joiner" },
    {
      unreachable: (why) => log.warn({ why, servers: deps.servers }, "the broker can't be reached; redialling"),
      refused: () =>
        log.warn({ servers: deps.servers }, "the broker does not know this join line: is it of another coordinator? redialling slowly"),
    },
  );
  try {
    for (let said = ""; ;) {
      const reply = await ask(nc, deps);
      if (reply.kind === "join.approved") return reply;
      if (reply.kind === "join.refused") throw new RefusedError(info.agentId, reply.reason);
      if (reply.reason !== said && reply.kind === "join.waiting")
        log.info(
          { agentId: info.agentId, why: reply.reason },
          `waiting for approval; where the coordinator is, a person says: vibeserve agents approve ${info.agentId} (npx vibeserve … in a checkout)`,
        );
      else if (reply.reason !== said) log.warn({ why: reply.reason }, "no answer to the question to join; asking again");
      said = reply.reason;
      await sleep(ASK_AGAIN_MS * (1 + Math.random() / 4));
    }
  } finally {
    await nc.close();
  }
}

async function ask(nc: NatsConnection, { info, identity, proof }: JoinDeps): Promise<JoinReply | { kind: "none"; reason: string }> {
  const unsigned = { v: 1 as const, kind: "join" as const, agent: info, proof: proof() };
  const request = encode(JoinRequest, { ...unsigned, sig: identity.sign(unsigned) }, subjects.join);
  try {
    const reply = decode(JoinReply, (await nc.request(subjects.join, request, { timeout: ANSWER_MS })).data, subjects.join);
    // Another joiner may have had its own answer sent here.
    return reply.publicKey === info.publicKey
      ? reply
      : { kind: "none", reason: `an answer to another key: ${reply.kind === "join.approved" ? "" : reply.reason}` };
  } catch (error) {
    if (error instanceof TimeoutError || error instanceof NoRespondersError || error instanceof RequestError || error instanceof CodecError)
      return { kind: "none", reason: error.message };
    throw error;
  }
}
