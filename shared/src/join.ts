import { z } from "zod";
import { AgentInfo } from "./device.ts";
import { Id } from "./ids.ts";
import { message } from "./message.ts";

/** Why an agent may be let in. `none`: it only asks how it stands. */
export const JoinProof = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("token"), token: z.string().min(1).max(200) }),
  /** A bound token of the pod's service account, made for the coordinator's audience. */
  z.strictObject({ kind: z.literal("service-account"), jwt: z.string().min(1).max(8192) }),
  z.strictObject({ kind: z.literal("none") }),
]);
export type JoinProof = z.infer<typeof JoinProof>;

/**
 * Request on `vs.join` (core request/reply, 10 s) by the role `joiner`, which may do nothing else: may this agent come in? Asked again with the same key it gets
 * the same answer, so a lost one loses nothing. sig: the agent's NKey over canonicalJson(everything but sig): nobody asks in another's name. No answer: the
 * coordinator is away or has too many such requests at once; try again. A request that is malformed or not signed is answered `join.refused`.
 */
export const JoinRequest = message("join", {
  agent: AgentInfo,
  proof: JoinProof,
  sig: z.string(),
});
export type JoinRequest = z.infer<typeof JoinRequest>;

const Standing = { v: z.literal(1), agentId: z.string(), publicKey: z.string() };
/** A user's claim that a NATS cluster's operator signed (JWT): shown beside the key's signature, and worth nothing without that key. */
export const UserClaim = z.string().regex(/^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/);
/**
 * Answer to JoinRequest. An agent heeds one only with its own publicKey in it: joiners share a space for replies. approved: dial with the NKey, and with `claim` where
 * there is one, in one of these pools. waiting: a person has to approve it; ask again. refused: final for this key and proof.
 */
export const JoinReply = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("join.approved"), ...Standing, pools: z.array(Id).min(1), claim: UserClaim.optional() }),
  z.strictObject({ kind: z.literal("join.waiting"), ...Standing, reason: z.string().max(1000) }),
  z.strictObject({ kind: z.literal("join.refused"), ...Standing, reason: z.string().max(1000) }),
]);
export type JoinReply = z.infer<typeof JoinReply>;

/** What a person carries from the coordinator to a node. */
export interface JoinLine {
  /** Brokers' addresses, any of which will do. */
  servers: string[];
  /** Single use; null: the agent proves itself otherwise (service account). */
  token: string | null;
  /** NKey seed of role `joiner`: it opens nothing but `vs.join`. */
  joiner: string;
  /** base64url of the sha256 of the authority's certificate (DER); null: no TLS, on this machine only. */
  fingerprint: string | null;
  /** The joiner's claim on a cluster; null: the broker needs none. */
  claim: string | null;
}

const LINE =
  /^((?:tls|nats):\/\/[^#\s]+)#([A-Za-z0-9_-]{43})?\.(SU[A-Z2-7]{56})(?:\.([A-Za-z0-9_-]{43})(?:\.([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+))?)?$/;

export function formatJoinLine({ servers, token, joiner, fingerprint, claim }: JoinLine): string {
  const rest = [joiner, fingerprint, claim].filter((part) => part !== null);
  return `${servers.join(",")}#${token ?? ""}.${rest.join(".")}`;
}

/** Null: not a join line, or a TLS address without a fingerprint. */
export function parseJoinLine(text: string): JoinLine | null {
  const match = LINE.exec(text.trim());
  if (!match) return null;
  const [, addresses = "", token = null, joiner = "", fingerprint = null, claim = null] = match;
  const servers = addresses.split(",");
  if (servers.some((server) => !/^(tls|nats):\/\/./.test(server) || (server.startsWith("tls://") && fingerprint === null))) return null;
  return { servers, token, joiner, fingerprint, claim };
}
