import { createUser, type KeyPair } from "@nats-io/nkeys";
import type { NatsConnection } from "@nats-io/transport-node";
import {
  AgentToken,
  AgentTokenRequest,
  canonicalJson,
  decode,
  encode,
  JoinReply,
  JoinRequest,
  parseJoinLine,
  subjects,
  type AgentInfo,
  type JoinLine,
  type JoinProof,
} from "@vibeserve/shared";
import type { ApiClient } from "../../coordinator/src/api/client.ts";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { simulatedDevice } from "./fake-outcomes.ts";

/** An agent's key with what it says of itself, before it is in. */
export interface Newcomer {
  key: KeyPair;
  seed: string;
  info: AgentInfo;
}

export function newcomer(agentId: string, key: KeyPair = createUser()): Newcomer {
  const info: AgentInfo = {
    ...{
      v: 1,
      kind: "agent",
      agentId,
      publicKey: key.getPublicKey(),
      version: "0.0.0",
      pools: ["local"],
      devices: [simulatedDevice(agentId)],
    },
    ...{ tools: [], sandbox: "none", state: "ready", pid: 1, host: "simulated", startedAt: 1 },
  };
  return { key, seed: new TextDecoder().decode(key.getSeed()), info };
}

export function lineOf(text: string): JoinLine {
  const line = parseJoinLine(text);
  if (!line) throw new Error(`not a join line: ${text}`);
  return line;
}

export type LineChoice = Partial<{ pool: string; labels: Record<string, string>; ttlMs: number; kubernetes: boolean }>;

/** Asks for a line; default: one with a token, for whatever device, good for ten minutes. */
export const joinLine = (client: ApiClient, more: LineChoice = {}) =>
  client.ask(
    "agent-token",
    AgentTokenRequest,
    { v: 1, kind: "agent.token.request", pool: null, labels: {}, ttlMs: 600_000, kubernetes: false, ...more },
    AgentToken,
  );

export const dialJoiner = (line: JoinLine, ca?: string): Promise<NatsConnection> =>
  connectBus({ servers: line.servers, ca, seed: line.joiner, claim: line.claim ?? undefined, principal: "joiner" });

/** Asks once. signer: default the newcomer itself. */
export async function askToJoin(nc: NatsConnection, who: Newcomer, proof: JoinProof, signer: KeyPair = who.key): Promise<JoinReply> {
  const unsigned = { v: 1 as const, kind: "join" as const, agent: who.info, proof };
  const sig = Buffer.from(signer.sign(new TextEncoder().encode(canonicalJson(unsigned)))).toString("base64");
  const request = encode(JoinRequest, { ...unsigned, sig }, subjects.join);
  return decode(JoinReply, (await nc.request(subjects.join, request, { timeout: 10_000 })).data, subjects.join);
}
