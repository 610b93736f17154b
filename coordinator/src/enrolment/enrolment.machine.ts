import { timingSafeEqual } from "node:crypto";
import { Digest, Id, Instant, message, sha256, type AgentInfo } from "@vibeserve/shared";
import { z } from "zod";
import type { AgentPrincipal } from "../broker/principals.ts";
import { missingLabels } from "../fleet/agent-registry.ts";

/**
 * Who may come in.
 *   E1. A token lets in one key, once: the first that is judged has it, for ever; the same key may ask again and hears the same.
 *   E2. A key that was revoked is never let in again, with whatever proof.
 *   E3. An id belongs to one key as long as that is enrolled or waits.
 *   E4. Only a token's hash is kept.
 */
const Token = z.strictObject({
  hash: Digest,
  pool: Id.nullable(),
  labels: z.record(z.string(), z.string()),
  expiresAt: Instant,
  /** Public key that has it. */
  usedBy: z.string().nullable(),
});

const Applicant = z.strictObject({
  agentId: Id,
  publicKey: z.string(),
  pools: z.array(Id).min(1),
  version: z.string(),
  devices: z.array(z.strictObject({ id: Id, name: z.string(), isa: z.string(), simulated: z.boolean() })),
  since: Instant,
});
export type Applicant = z.infer<typeof Applicant>;

const Outcast = z.strictObject({ agentId: Id, publicKey: z.string(), at: Instant, reason: z.string() });
export type Outcast = z.infer<typeof Outcast>;

/** `<data>/nats/keys/enrolment.json`, beside agents.json, which has those who are in. */
export const Enrolments = message("enrolments", {
  tokens: z.array(Token),
  waiting: z.array(Applicant),
  /** Asked and were told no; a new token may still let them in. */
  refused: z.array(Outcast),
  revoked: z.array(Outcast),
});
export type Enrolments = z.infer<typeof Enrolments>;

/** As many as a client may enrol an agent for. */
const MAX_POOLS = 8;

export const NOBODY: Enrolments = { v: 1, kind: "enrolments", tokens: [], waiting: [], refused: [], revoked: [] };

/** What an agent's proof came to: a token as it was given, an account that was verified, or why neither. */
export type Proof = { kind: "token"; token: string } | { kind: "account" } | { kind: "none"; why: string };

export type Verdict = { kind: "approve"; agent: AgentPrincipal } | { kind: "wait"; reason: string } | { kind: "refuse"; reason: string };

export function mint(
  state: Enrolments,
  token: { secret: string; pool: string | null; labels: Record<string, string>; expiresAt: number },
  now: number,
): Enrolments {
  const { secret, ...rest } = token;
  return { ...state, tokens: [...state.tokens.filter((t) => t.expiresAt > now), { ...rest, hash: sha256(secret), usedBy: null }] };
}

/** May this agent come in? Pure; what it returns is to be kept before the verdict is told. */
export function judge(
  state: Enrolments,
  enrolled: readonly AgentPrincipal[],
  agent: AgentInfo,
  proof: Proof,
  now: number,
): { state: Enrolments; verdict: Verdict } {
  const same = (verdict: Verdict) => ({ state, verdict });
  const refuse = (reason: string) => same({ kind: "refuse", reason });
  const { agentId, publicKey } = agent;
  if (agent.pools.length === 0 || agent.pools.length > MAX_POOLS) return refuse(`it must name 1 to ${MAX_POOLS} pools`);
  const revoked = state.revoked.find((r) => r.publicKey === publicKey);
  if (revoked) return refuse(`this key was revoked at ${new Date(revoked.at).toISOString()}: ${revoked.reason}`);
  const known = enrolled.find((a) => a.publicKey === publicKey);
  if (known && known.agentId !== agentId) return refuse(`this key belongs to agent ${known.agentId}`);
  if (known) return same({ kind: "approve", agent: known });
  if (enrolled.some((a) => a.agentId === agentId)) return refuse(taken(agentId, "is enrolled"));
  const waiting = state.waiting.find((a) => a.publicKey === publicKey);
  if (waiting) return same({ kind: "wait", reason: `since ${new Date(waiting.since).toISOString()}, for a person to approve it` });
  if (state.waiting.some((a) => a.agentId === agentId)) return refuse(taken(agentId, "waits"));
  if (proof.kind === "account") return same({ kind: "approve", agent: { agentId, publicKey, pools: agent.pools, enrolledAt: now } });
  if (proof.kind === "none") {
    return refuse(refusedBefore(state, publicKey) ?? proof.why);
  }
  return claim(state, agent, proof.token, now);
}

function refusedBefore({ refused }: Enrolments, publicKey: string): string | null {
  const before = refused.find((r) => r.publicKey === publicKey);
  return before ? `it was refused at ${new Date(before.at).toISOString()}: ${before.reason}` : null;
}

function claim(state: Enrolments, agent: AgentInfo, secret: string, now: number): { state: Enrolments; verdict: Verdict } {
  const refuse = (reason: string) => ({ state, verdict: { kind: "refuse" as const, reason } });
  const { agentId, publicKey, version } = agent;
  const token = findToken(state, secret);
  if (!token || (token.expiresAt <= now && token.usedBy === null))
    return refuse("its token is not known, or has expired: make a new join line");
  if (token.usedBy !== null && token.usedBy !== publicKey)
    return refuse("its token was used already, by another key: make a new join line, and look who came in with this one");
  const before = refusedBefore(state, publicKey);
  if (before !== null && token.usedBy !== null) return refuse(before);
  const fits = agent.devices.some((device) => missingLabels(device, token.labels).length === 0);
  if (!fits) {
    const lacks = agent.devices.map((device) => `${device.id}: ${missingLabels(device, token.labels).join(", ")}`).join("; ");
    return refuse(`its token is for devices with other labels; missing: ${lacks || "any device"}`);
  }
  const pools = token.pool === null ? agent.pools : [token.pool];
  const devices = agent.devices.map(({ id, name, isa, simulated }) => ({ id, name, isa, simulated }));
  const tokens = state.tokens.map((t) => (t === token ? { ...t, usedBy: publicKey } : t));
  if (Object.keys(token.labels).length > 0)
    return { state: { ...state, tokens }, verdict: { kind: "approve", agent: { agentId, publicKey, pools, enrolledAt: now } } };
  const refused = state.refused.filter((r) => r.publicKey !== publicKey);
  const waiting = [...state.waiting, { agentId, publicKey, pools, version, devices, since: now }];
  return { state: { ...state, tokens, waiting, refused }, verdict: { kind: "wait", reason: "for a person to approve it" } };
}

/** Every hash is compared, in full: how long it takes says nothing. */
function findToken(state: Enrolments, secret: string): z.infer<typeof Token> | null {
  const hash = Buffer.from(sha256(secret));
  let found: z.infer<typeof Token> | null = null;
  for (const token of state.tokens) if (timingSafeEqual(hash, Buffer.from(token.hash))) found = token;
  return found;
}

const taken = (agentId: string, how: string): string =>
  `agent id ${agentId} belongs to another key, which ${how}: choose another --agent-id, or put that one out first (verbs "agents revoke" and "agents refuse")`;

/** It does not wait any more: it is in, or was told no. */
export function decided(state: Enrolments, agentId: string, no: { at: number; reason: string } | null): Enrolments {
  const applicant = state.waiting.find((a) => a.agentId === agentId);
  const waiting = state.waiting.filter((a) => a !== applicant);
  if (!applicant || !no) return { ...state, waiting };
  return { ...state, waiting, refused: [...state.refused, { agentId, publicKey: applicant.publicKey, ...no }] };
}

/** Its key is out for ever. */
export function revoked(state: Enrolments, { agentId, publicKey }: AgentPrincipal, at: number, reason: string): Enrolments {
  return { ...state, revoked: [...state.revoked.filter((r) => r.publicKey !== publicKey), { agentId, publicKey, at, reason }] };
}

/** After a kill between two files: an agent that is in does not wait, and one whose key was revoked is not in. */
export function reconciled(state: Enrolments, enrolled: readonly AgentPrincipal[]): { state: Enrolments; out: AgentPrincipal[] } {
  const out = enrolled.filter((a) => state.revoked.some((r) => r.publicKey === a.publicKey));
  const waiting = state.waiting.filter((w) => !enrolled.some((a) => a.publicKey === w.publicKey));
  return { state: { ...state, waiting }, out };
}
