import {
  AgentDecided,
  AgentDecision,
  AgentsPage,
  AgentsRequest,
  AgentToken,
  AgentTokenRequest,
  ArtifactChunk,
  ArtifactRequest,
  CampaignList,
  CampaignRequest,
  CampaignSummary,
  CoordinatorStatus,
  EmptyRequest,
  Enrolled,
  EnrollRequest,
  EventPage,
  ExportBundle,
  notRunnableYet,
  PruneReport,
  PruneRequest,
  subjects,
  SubmitRequest,
  targetProblems,
  WatchRequest,
  type AgentRow,
  type ArtifactRef,
  type CampaignOptions,
  type Target,
} from "@vibeserve/shared";
import { ArtifactCorruptError, ArtifactMissingError, type ArtifactStore } from "../artifact/artifact-store.ts";
import type { CampaignActor } from "../campaign/campaign.actor.ts";
import type { CampaignRegistry } from "../campaign/registry.ts";
import type { CampaignRepository } from "../checkpoint/repository.ts";
import type { Enrolment } from "../enrolment/enrolment.ts";
import type { LiveLease } from "../fleet/lease-table.ts";
import { exportCampaign } from "./export.ts";
import { fleetVerbs, type FleetVerbDeps } from "./fleet-verbs.ts";
import { pageOf } from "./pages.ts";
import { ApiProblem } from "./problem.ts";
import { verb, type AnyVerb } from "./server.ts";
import { summaryOf } from "./summary.ts";

export interface VerbDeps {
  campaigns: Pick<CampaignRegistry, "find" | "list" | "all" | "broken">;
  /** Throws where the target's seed is not installed. */
  submit: (target: Target, options: CampaignOptions) => Promise<CampaignActor>;
  artifacts: ArtifactStore;
  leases: () => readonly LiveLease[];
  fleet: Omit<FleetVerbDeps, "campaigns" | "leases" | "now">;
  repository: (campaign: string) => Promise<CampaignRepository>;
  enrolment: Pick<Enrolment, "enroll" | "token" | "decide">;
  /** By id, those after `after`. */
  agents: (after: string | null, limit: number) => { rows: AgentRow[]; more: boolean };
  /** Where an enrolled agent dials, and with what. */
  broker: (agentId: string) => Promise<{ servers: string[]; ca: string | undefined; claim: string | undefined }>;
  prune: (request: { olderThanMs: number; dryRun: boolean; needed: () => ReadonlySet<string> }) => Promise<PruneReport>;
  status: () => Omit<CoordinatorStatus, "v" | "kind" | "campaigns" | "unreadable">;
  now: () => number;
}

/** Below MAX_MESSAGE_BYTES, with room for the rest of the reply. */
const CHUNK_BYTES = 192 * 1024;
/** A row has some 400 bytes with one device, and 100 more for each further one: of a node with 56 MIG slices, 6 kB. */
const ROWS = 40;

export function apiVerbs(deps: VerbDeps): Record<string, AnyVerb> {
  const summary = (actor: CampaignActor): CampaignSummary => summaryOf(actor.state, actor.waits, deps.leases(), deps.now());
  const lists = async () => {
    await deps.campaigns.all;
    return {
      campaigns: deps.campaigns.list().map(summary),
      unreadable: [...deps.campaigns.broken].map(([campaign, reason]) => ({ campaign, reason })),
    };
  };
  const find = async (id: string | null): Promise<CampaignActor> => {
    const actor = await deps.campaigns.find(id);
    if (actor) return actor;
    const broken = id === null ? undefined : deps.campaigns.broken.get(id);
    if (broken !== undefined) throw new ApiProblem("internal", broken);
    throw new ApiProblem("not-found", id === null ? "there is no campaign yet" : `no campaign ${id}`);
  };
  const change = (what: string, act: (actor: CampaignActor) => Promise<boolean>) =>
    verb(CampaignRequest, CampaignSummary, async ({ campaign }) => {
      const actor = await find(campaign);
      if (!(await act(actor))) {
        const { state } = summary(actor);
        throw new ApiProblem("conflict", `campaign ${actor.id} can't be ${what}: it is ${state}`);
      }
      return summary(actor);
    });

  return {
    ...fleetVerbs({ ...deps.fleet, campaigns: deps.campaigns, leases: deps.leases, now: deps.now }),
    submit: verb(SubmitRequest, CampaignSummary, async ({ target, options }) => {
      const [problem] = targetProblems(target);
      if (problem) throw new ApiProblem("bad-input", `${problem[0].join(".")}: ${problem[1]}`);
      const [missing] = notRunnableYet(target);
      if (missing !== undefined) throw new ApiProblem("bad-input", `not runnable yet: ${missing}`);
      return summary(await deps.submit(target, options));
    }),
    campaigns: verb(EmptyRequest, CampaignList, async () => ({ v: 1 as const, kind: "campaigns" as const, ...(await lists()) })),
    pause: change("paused", (actor) => actor.pause("asked for")),
    resume: change("resumed", (actor) => actor.resume("asked for")),
    cancel: change("cancelled", (actor) => actor.cancel("asked for")),
    watch: verb(WatchRequest, EventPage, async ({ campaign, after }) => {
      const actor = await find(campaign);
      return {
        v: 1 as const,
        kind: "events" as const,
        campaign: actor.id,
        subject: subjects.live(actor.id),
        ...pageOf(actor.events, after),
        summary: summary(actor),
      };
    }),
    export: verb(CampaignRequest, ExportBundle, async ({ campaign }) => {
      const actor = await find(campaign);
      const put = (bytes: Uint8Array): Promise<ArtifactRef> => deps.artifacts.put(bytes);
      return exportCampaign(actor, await deps.repository(actor.id), put);
    }),
    artifact: verb(ArtifactRequest, ArtifactChunk, async ({ digest, offset }) => {
      const bytes = await readArtifact(deps.artifacts, digest);
      const data = bytes.subarray(offset, offset + CHUNK_BYTES);
      return { v: 1 as const, kind: "artifact" as const, digest, offset, totalBytes: bytes.length, data };
    }),
    prune: verb(PruneRequest, PruneReport, async ({ olderThanS, dryRun }) => {
      const [broken] = deps.campaigns.broken.keys();
      if (broken !== undefined) throw new ApiProblem("conflict", `campaign ${broken} can't be read, so nobody knows what it needs`);
      return deps.prune({ olderThanMs: olderThanS * 1000, dryRun, needed: () => neededDigests(deps.campaigns.list()) });
    }),
    enroll: verb(EnrollRequest, Enrolled, async ({ agentId, publicKey, pools }) => {
      if (!(await deps.enrolment.enroll({ agentId, publicKey, pools })))
        throw new ApiProblem("conflict", `agent id ${agentId} belongs to another key, or this key to another id`);
      const { servers, ca, claim } = await deps.broker(agentId);
      const shown = { ...(ca === undefined ? {} : { ca }), ...(claim === undefined ? {} : { claim }) };
      return { v: 1 as const, kind: "enrolled" as const, agentId, servers, ...shown };
    }),
    "agent-token": verb(AgentTokenRequest, AgentToken, (request) => deps.enrolment.token(request)),
    agents: verb(AgentsRequest, AgentsPage, async ({ after }) => {
      const { rows, more } = deps.agents(after, ROWS);
      return { v: 1 as const, kind: "agents" as const, agents: rows, more };
    }),
    "agent-decide": verb(AgentDecision, AgentDecided, async (request) => {
      await deps.enrolment.decide(request);
      return { v: 1 as const, kind: "agent.decided" as const, agentId: request.agentId, decision: request.decision };
    }),
    status: verb(EmptyRequest, CoordinatorStatus, async () => ({
      v: 1 as const,
      kind: "status" as const,
      ...deps.status(),
      ...(await lists()),
    })),
  };
}

/** Every digest in the logs of campaigns that are not over: those of artifacts are among them. */
function neededDigests(actors: readonly CampaignActor[]): ReadonlySet<string> {
  const live = actors.filter((actor) => actor.state.ended === null);
  return new Set(live.flatMap((actor) => actor.events.flatMap(({ event }) => JSON.stringify(event).match(/[0-9a-f]{64}/g) ?? [])));
}

async function readArtifact(store: ArtifactStore, digest: string): Promise<Uint8Array> {
  try {
    return await store.get(digest);
  } catch (error) {
    if (error instanceof ArtifactMissingError) throw new ApiProblem("not-found", error.message);
    if (error instanceof ArtifactCorruptError) throw new ApiProblem("internal", error.message);
    throw error;
  }
}
