import { BUCKETS, inbox, subjects } from "@vibeserve/shared";
import type { AgentPrincipal } from "./principals.ts";

/**
 * Who may do what on the broker.
 *
 * Publish and subscribe lists alone do not hold: whoever may make one request may name any subject as its reply address, and the server (or the
 * coordinator) then publishes the answer there, past the requester's list. With JetStream that means writing into any stream. So every agent,
 * and the client role, has an account of its own, a subject space into which nothing leads but the imports listed here; a reply address is
 * resolved inside that space. What an account can reach, it reaches under the same subject as the coordinator uses, but for
 * what is renamed.
 *
 * The coordinator's account imports nothing: an import an agent there made the server take 2 minutes to read the configuration of 10,000 agents, and what an
 * agent has to say has subjects of its own. So orders to an agent have no answer.
 */
export interface Permissions {
  publish: string[];
  subscribe: string[];
}

/** What an account publishes as `subject` comes to the coordinator's as `as`. share: with the asker's connection in the header Nats-Request-Info. */
export interface Renamed {
  subject: string;
  as: string;
  share?: true;
}

/** What an account imports from the coordinator's: requests it may make there, and messages it gets from there. */
export interface Imports {
  services: (string | Renamed)[];
  streams: string[];
}

/** The coordinator's own, within its account. */
export const EVERYTHING: Permissions = { publish: [">"], subscribe: [">"] };

const ARTIFACTS = `OBJ_${BUCKETS.artifacts}`;
const LEASES = `KV_${BUCKETS.leases}`;

/** Offered by the coordinator's account; who may import which is decided by the import lists, which are ours as well. */
export const EXPORTS = {
  services: [
    subjects.api("*"),
    subjects.beat("*"),
    subjects.join,
    subjects.result("*", "*"),
    subjects.progress("*", "*"),
    `$KV.${BUCKETS.agents}.>`,
    "$JS.API.INFO",
    "$JS.API.STREAM.INFO.*",
    `$JS.API.DIRECT.GET.${LEASES}.${subjects.assignment("*", "*")}`,
    `$O.${BUCKETS.artifacts}.C.*.*`,
    subjects.artifact("*", "*"),
    `$JS.API.STREAM.MSG.GET.${ARTIFACTS}`,
  ],
  /** Several messages may answer one request. */
  streamingServices: [`$JS.API.DIRECT.GET.${ARTIFACTS}`, `$JS.API.DIRECT.GET.${ARTIFACTS}.>`],
  streams: [subjects.live(">"), "vs.progress.>", subjects.assigned("*", "*"), subjects.agent("*", "*"), subjects.roll],
};

/** People's verbs: ask, and watch. Everything that a client reads comes through the coordinator's answers. */
export const CLIENT_IMPORTS: Imports = {
  services: [subjects.api("*")],
  streams: [subjects.live(">"), "vs.progress.>"],
};

export const CLIENT_PERMISSIONS: Permissions = {
  publish: [subjects.api("*")],
  subscribe: [`${inbox("client")}.>`, ...CLIENT_IMPORTS.streams],
};

/** Whoever holds a join line: one question, and its answer. Answers hold nothing that another joiner may not see. */
export const JOINER_IMPORTS: Imports = { services: [{ subject: subjects.join, as: subjects.join, share: true }], streams: [] };

export const JOINER_PERMISSIONS: Permissions = { publish: [subjects.join], subscribe: [`${inbox("joiner")}.>`] };

/** Old join lines open this account, so it is kept small: nodes that join at once, and one question of each (an AgentInfo, at most 256 KiB). */
export const JOINER_LIMITS = { max_connections: 256, max_subscriptions: 1024, max_payload: 256 * 1024 };

/**
 * An agent: its own results, progress, beats, registry entry and assignments; artifacts, checked by digest on each read. Assignments and artifacts
 * are read by direct gets: a consumer could be told to deliver anywhere in the coordinator's account. What it puts into the object store lands under a
 * subject of its own, and the name that it gives to it is a question to the coordinator (artifact-intake.ts).
 */
export function agentImports({ agentId }: AgentPrincipal): Imports {
  return {
    services: [
      subjects.result(agentId, "*"),
      subjects.progress(agentId, "*"),
      subjects.beat(agentId),
      `$KV.${BUCKETS.agents}.${agentId}.info`,
      "$JS.API.INFO",
      `$JS.API.STREAM.INFO.KV_${BUCKETS.agents}`,
      `$JS.API.STREAM.INFO.${ARTIFACTS}`,
      `$JS.API.DIRECT.GET.${LEASES}.${subjects.assignment(agentId, "*")}`,
      { subject: `$O.${BUCKETS.artifacts}.C.*`, as: `$O.${BUCKETS.artifacts}.C.${agentId}.*` },
      { subject: `$O.${BUCKETS.artifacts}.M.*`, as: subjects.artifact(agentId, "*") },
      `$JS.API.STREAM.MSG.GET.${ARTIFACTS}`,
      `$JS.API.DIRECT.GET.${ARTIFACTS}`,
      `$JS.API.DIRECT.GET.${ARTIFACTS}.>`,
    ],
    streams: [subjects.assigned(agentId, "*"), subjects.agent(agentId, "*"), subjects.roll],
  };
}

/** The same once more as lists of the user: an attempt at anything else gets an error that names the subject instead of silence. */
export function agentPermissions(agent: AgentPrincipal): Permissions {
  const { services, streams } = agentImports(agent);
  return { publish: services.map((s) => (typeof s === "string" ? s : s.subject)), subscribe: [`${inbox(agent.agentId)}.>`, ...streams] };
}
