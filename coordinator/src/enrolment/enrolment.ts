import { existsSync, readFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import {
  CodecError,
  decode,
  encode,
  formatJoinLine,
  JoinReply,
  JoinRequest,
  subjects,
  type AgentDecision,
  type AgentToken,
  type AgentTokenRequest,
} from "@vibeserve/shared";
import type { z } from "zod";
import { ApiProblem } from "../api/problem.ts";
import type { BrokerAccess } from "../broker/access.ts";
import { isUserKey, writePrivate, type AgentPrincipal } from "../broker/principals.ts";
import { signedBy } from "../fleet/signature.ts";
import { Door } from "./door.ts";
import { decided, Enrolments, judge, mint, NOBODY, reconciled, revoked, type Outcast, type Proof } from "./enrolment.machine.ts";

export interface EnrolmentDeps {
  /** Its own: what floods it costs the verbs' connection nothing. */
  nc: NatsConnection;
  broker: BrokerAccess;
  /** The agent is out: its key opens nothing any more. What it held is void. */
  putOut: (agentId: string, reason: string) => Promise<void>;
  /** Null: service accounts are not set up. */
  checkAccount: ((jwt: string) => Promise<{ account: string } | { why: string }>) | null;
  log: (event: string, facts: Record<string, unknown>) => void;
}

/** A question may wait for a service account's keys: as many are under way; the rest get no answer and ask again. */
const MAX_ASKING = 512;

/**
 * The one writer of who may come in. From judging to disk nothing awaits, so that of two uses of one token one wins; a decision is on disk before it is told, so
 * that a kill at any moment loses or doubles nothing: what two files say between two writes is put right at the next start, revocations first.
 */
export class Enrolment implements AsyncDisposable {
  readonly #deps: EnrolmentDeps;
  #state: Enrolments;
  readonly #door = new Door();
  readonly #asking = new Set<Promise<void>>();
  #unsubscribe: () => void = () => undefined;

  private constructor(deps: EnrolmentDeps, state: Enrolments) {
    this.#deps = deps;
    this.#state = state;
  }

  /** Knows who is in; answers nothing yet. */
  static load(deps: EnrolmentDeps): Enrolment {
    const file = join(deps.broker.keys, "enrolment.json");
    return new Enrolment(deps, existsSync(file) ? Enrolments.parse(JSON.parse(readFileSync(file, "utf8"))) : NOBODY);
  }

  /** Finishes what a kill left half done, then answers `vs.join`. Call it when leases are known. */
  async start(): Promise<void> {
    const { nc, broker, putOut } = this.#deps;
    const { state, out } = reconciled(this.#state, broker.agents);
    this.#state = state;
    for (const { agentId } of out) {
      await broker.expel(agentId);
      await putOut(agentId, "revoked");
    }
    const subscription = nc.subscribe(subjects.join, { callback: (error, message) => (error ? undefined : this.#asked(message)) });
    this.#unsubscribe = () => subscription.unsubscribe();
  }

  get waiting(): Enrolments["waiting"] {
    return this.#state.waiting;
  }

  get revoked(): readonly Outcast[] {
    return this.#state.revoked;
  }

  /** A line for one node. Only the token's hash stays here. */
  async token(request: z.infer<typeof AgentTokenRequest>): Promise<AgentToken> {
    const { broker, checkAccount, log } = this.#deps;
    if (request.kubernetes && checkAccount === null)
      throw new ApiProblem(
        "bad-input",
        "service accounts are not set up: set VIBESERVE_KUBERNETES_ISSUER and VIBESERVE_KUBERNETES_ACCOUNTS",
      );
    const secret = request.kubernetes ? null : randomBytes(32).toString("base64url");
    const now = Date.now();
    const expiresAt = secret === null ? null : now + request.ttlMs;
    const { pool, labels } = request;
    if (secret !== null && expiresAt !== null) this.#keep(mint(this.#state, { secret, pool, labels, expiresAt }, now));
    log("enrolment.token", { pool, labels, expiresAt, kubernetes: request.kubernetes });
    const line = formatJoinLine({
      servers: broker.publicUrl.split(","),
      token: secret,
      joiner: broker.seeds.joiner,
      fingerprint: broker.fingerprint,
      claim: broker.claims.joiner ?? null,
    });
    return { v: 1, kind: "agent.token", line, expiresAt };
  }

  /** By the holder of a client's key, who is the person that approves. False: the id belongs to another key, or the key to another id. */
  async enroll(agent: AgentPrincipal): Promise<boolean> {
    const out = this.#state.revoked.find((r) => r.publicKey === agent.publicKey);
    if (out)
      throw new ApiProblem(
        "conflict",
        `the key of agent ${agent.agentId} was revoked (${out.reason}); remove its agent.nk, and it makes another`,
      );
    if (!(await this.#deps.broker.enroll({ ...agent, enrolledAt: Date.now() }))) return false;
    this.#keep(decided(this.#state, agent.agentId, null));
    return true;
  }

  /** Throws ApiProblem: not-found, conflict. Returns when it holds on the broker. */
  async decide({ agentId, decision, reason }: z.infer<typeof AgentDecision>): Promise<void> {
    const applicant = this.#state.waiting.find((a) => a.agentId === agentId);
    const agent = this.#deps.broker.agents.find((a) => a.agentId === agentId);
    this.#deps.log(`enrolment.${decision}`, { agentId, reason });
    if (decision === "revoke") {
      // Asked again after a broker that did not answer: what is missing is done.
      if (agent) this.#keep(revoked(this.#state, agent, Date.now(), reason));
      else if (applicant) throw new ApiProblem("conflict", `agent ${agentId} is not enrolled: refuse it`);
      else if (!this.#state.revoked.some((r) => r.agentId === agentId)) throw new ApiProblem("not-found", `no agent ${agentId}`);
      await this.#deps.broker.expel(agentId);
      await this.#deps.putOut(agentId, reason);
      return;
    }
    // An applicant that is enrolled is one whose approval was not read by the broker: approving it again does what is missing.
    if (!applicant || (agent && decision === "refuse"))
      throw new ApiProblem(agent ? "conflict" : "not-found", `agent ${agentId} does not wait${agent ? ": it is enrolled" : ""}`);
    if (decision === "approve") {
      const { publicKey, pools } = applicant;
      if (!(await this.#deps.broker.enroll({ agentId, publicKey, pools, enrolledAt: Date.now() })))
        throw new ApiProblem("conflict", `agent id ${agentId} belongs to another key by now`);
    }
    this.#keep(decided(this.#state, agentId, decision === "approve" ? null : { at: Date.now(), reason }));
  }

  /** It has ended for good, and has nothing to say any more: its key opens nothing. Unlike a revoked one it is not kept in mind. */
  async forget(agentId: string): Promise<void> {
    if (!this.#deps.broker.agents.some((agent) => agent.agentId === agentId)) return;
    await this.#deps.broker.expel(agentId);
    await this.#deps.putOut(agentId, "its pod is gone");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unsubscribe();
    await Promise.all(this.#asking);
  }

  #asked(message: Msg): void {
    if (message.reply === undefined || message.reply === "" || this.#asking.size >= MAX_ASKING) return;
    if (!this.#door.admits(message, (hash) => this.#state.tokens.some((t) => t.hash === hash && t.expiresAt > Date.now()))) return;
    const asking = this.#answer(message)
      .then((reply) => void message.respond(encode(JoinReply, reply, message.subject)))
      .catch((error: unknown) =>
        this.#deps.log("enrolment.failed", { why: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
      )
      .finally(() => this.#asking.delete(asking));
    this.#asking.add(asking);
  }

  async #answer(message: Msg): Promise<z.input<typeof JoinReply>> {
    let request: JoinRequest;
    try {
      request = decode(JoinRequest, message.data, message.subject);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      return {
        v: 1,
        kind: "join.refused",
        agentId: "",
        publicKey: "",
        reason: `not a question of this release: ${error.message}`.slice(0, 1000),
      };
    }
    const { agentId, publicKey } = request.agent;
    const who = { v: 1 as const, agentId, publicKey };
    if (!isUserKey(publicKey) || !signedBy(publicKey, request))
      return { kind: "join.refused", ...who, reason: "the question is not signed with the agent's key" };
    const proof = await this.#prove(request);
    const { log, broker } = this.#deps;
    const { state, verdict } = judge(this.#state, broker.agents, request.agent, proof, Date.now());
    if (state !== this.#state) {
      log(`enrolment.${verdict.kind}`, { agentId, publicKey, host: request.agent.host });
      this.#keep(state);
    }
    switch (verdict.kind) {
      case "approve":
        if (await broker.enroll(verdict.agent)) {
          const claim = await broker.claimOf(agentId);
          return { kind: "join.approved", ...who, pools: verdict.agent.pools, ...(claim === undefined ? {} : { claim }) };
        }
        return { kind: "join.refused", ...who, reason: `agent id ${agentId} or its key belongs to another` };
      case "wait":
        return { kind: "join.waiting", ...who, reason: verdict.reason };
      case "refuse":
        log("enrolment.refused", { agentId, publicKey, host: request.agent.host, reason: verdict.reason });
        return { kind: "join.refused", ...who, reason: verdict.reason.slice(0, 1000) };
    }
  }

  async #prove({ agent, proof }: JoinRequest): Promise<Proof> {
    if (proof.kind === "token") return proof;
    // Its key says who it is: one that is started again comes back while the API server is away.
    if (this.#deps.broker.agents.some(({ publicKey }) => publicKey === agent.publicKey))
      return { kind: "none", why: "its key was taken back meanwhile" };
    if (proof.kind === "none") return { kind: "none", why: "it is not enrolled, and its line's token is gone: make a new join line" };
    const { checkAccount } = this.#deps;
    if (checkAccount === null) return { kind: "none", why: "service accounts are not set up here" };
    const checked = await checkAccount(proof.jwt);
    return "account" in checked ? { kind: "account" } : { kind: "none", why: checked.why };
  }

  #keep(state: Enrolments): void {
    writePrivate(join(this.#deps.broker.keys, "enrolment.json"), JSON.stringify(state, null, 2));
    this.#state = state;
  }
}
