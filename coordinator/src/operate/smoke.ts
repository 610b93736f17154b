import { randomBytes } from "node:crypto";
import { createUser } from "@nats-io/nkeys";
import {
  AgentDecided,
  AgentDecision,
  AgentsPage,
  AgentsRequest,
  CampaignRequest,
  Enrolled,
  EnrollRequest,
  ExportBundle,
  type AgentRow,
  type CampaignEvent,
} from "@vibeserve/shared";
import type { ApiClient } from "../api/client.ts";
import { ApiProblem } from "../api/problem.ts";
import { fold, type Campaign } from "../campaign/campaign.machine.ts";
import { commandLine } from "../command-line.ts";
import { download } from "../cli/export.ts";
import { signedBy } from "../fleet/signature.ts";
import { delay } from "../process/backoff.ts";
import { campaignReport } from "../report/report-model.ts";
import { messageOf } from "../process/message-of.ts";
import { smokeTarget, startSmokeAgent } from "./smoke-agent.ts";

export interface SmokeStep {
  name: string;
  ok: boolean;
  /** What was seen. */
  saw: string;
  ms: number;
}

export interface Smoke {
  ok: boolean;
  agent: string;
  campaign: string | null;
  steps: SmokeStep[];
}

class StepFailed extends Error {}

/**
 * One campaign from end to end against a running coordinator: a simulated agent enrols, registers, is leased each job, signs each result; the champion, the report and
 * the signatures are checked; then the campaign has ended and the agent's key is revoked, whatever went wrong before. `seed`: the stack that the coordinator has.
 */
export async function smoke(client: ApiClient, seed: string, signal: AbortSignal, say: (step: SmokeStep) => void): Promise<Smoke> {
  const agentId = `smoke-${randomBytes(4).toString("hex")}`;
  const result: Smoke = { ok: true, agent: agentId, campaign: null, steps: [] };
  const step = async <T>(name: string, work: () => Promise<readonly [value: T, saw: string]>): Promise<T> => {
    const startedAt = Date.now();
    const end = (ok: boolean, saw: string) => {
      const done = { name, ok, saw, ms: Date.now() - startedAt };
      result.ok &&= ok;
      result.steps.push(done);
      say(done);
    };
    try {
      const [value, saw] = await work();
      end(true, saw);
      return value;
    } catch (error) {
      end(false, messageOf(error));
      throw new StepFailed(name, { cause: error });
    }
  };
  try {
    await run(client, seed, signal, agentId, result, step);
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
  }
  return result;
}

type Step = <T>(name: string, work: () => Promise<readonly [value: T, saw: string]>) => Promise<T>;

async function run(client: ApiClient, seed: string, signal: AbortSignal, agentId: string, result: Smoke, step: Step): Promise<void> {
  const key = createUser();
  const publicKey = key.getPublicKey();
  const own = { agentId, publicKey };
  const enrolled = await step("enrol", async () => {
    const enrolled = await client.ask("enroll", EnrollRequest, { v: 1, kind: "enroll", ...own, pools: [agentId] }, Enrolled);
    return [enrolled, `a simulated agent, ${agentId}, has a user at ${enrolled.servers.join(", ")}`];
  });
  let trouble: unknown = null;
  try {
    await using _agent = await step("connect", async () => {
      const seedOfKey = new TextDecoder().decode(key.getSeed());
      const agent = await startSmokeAgent(
        { ...enrolled, url: enrolled.servers[0] ?? "", agentId, seed: seedOfKey },
        (error) => (trouble ??= error),
      );
      return [agent, `${agent.nc.getServer()}, nats-server ${agent.nc.info?.version ?? "?"}`];
    });
    await step("register", async () => {
      const row = await untilRow(client, agentId, signal);
      if (row.devices.some((d) => !d.simulated)) throw new Error(`${agentId} is listed with a device that does not say it is simulated`);
      return [row, `${agentId} is ${row.state}, its device says that it is simulated`];
    });
    result.campaign = await step("submit", async () => {
      const options = { baselines: [], repeat: commandLine("smoke") };
      const { campaign } = await client.submit({ target: smokeTarget(agentId, seed), options });
      return [campaign, `campaign ${campaign}, seed ${seed}`];
    });
    const { state, events } = await step("campaign", () => played(client, result.campaign ?? "", signal));
    await step("results", async () => [null, checkResults(events, own)]);
    await step("report", async () => [null, await checkReport(client, state)]);
    if (trouble !== null) await step("agent", () => Promise.reject(trouble as Error));
  } finally {
    await settle(client, agentId, result.campaign, step);
  }
}

/** Until the campaign has ended or the signal aborts; its chain is checked on the way. */
async function played(client: ApiClient, id: string, signal: AbortSignal) {
  let state: Campaign | null = null;
  const events: CampaignEvent[] = [];
  for await (const event of client.watch(id, signal, () => undefined)) {
    if (event === "caught-up") {
      if (state?.pausedAt) throw new Error(`campaign ${id} was paused: ${state.pausedFor}`);
      continue;
    }
    state = fold(state, event);
    events.push(event);
    if (state.ended) break;
  }
  if (!state?.ended) throw new Error(`campaign ${id} did not end in time; ${events.length} events so far`);
  const { outcome, reason } = state.ended;
  if (outcome !== "proven") throw new Error(`campaign ${id} ended ${outcome}: ${reason}`);
  return [{ state, events }, `proven, ${events.length} events, each linked to the one before by its hash`] as const;
}

/** Every result is the agent's own word, under a token that rose, and says that it is simulated. */
function checkResults(events: readonly CampaignEvent[], { agentId, publicKey }: { agentId: string; publicKey: string }): string {
  const results = events.flatMap(({ fact }) => (fact.type === "job.settled" ? [fact] : []));
  for (const { result, accepted, why } of results) {
    if (!accepted) throw new Error(`job ${result.jobId}: its result was not accepted: ${why}`);
    if (result.agentId !== agentId || !signedBy(publicKey, result)) throw new Error(`job ${result.jobId}: not signed by ${agentId}`);
    if (result.outcome.status !== "measured") continue;
    for (const arm of [result.outcome.challenger, result.outcome.champion])
      if (!arm.certificate.simulated || !signedBy(publicKey, arm))
        throw new Error(`job ${result.jobId}: a measurement is not marked simulated and signed`);
  }
  const tokens = results.map(({ result }) => result.leaseToken);
  if (new Set(tokens).size !== tokens.length) throw new Error(`a fencing token was given twice: ${tokens.join(", ")}`);
  return `${results.length} results, all signed, accepted, under ${tokens.length} different tokens; every measurement says that it is simulated`;
}

/** The coordinator's report says what its own log says. */
async function checkReport(client: ApiClient, state: Campaign): Promise<string> {
  const request = { v: 1 as const, kind: "campaign.request" as const, campaign: state.id };
  const bundle = await client.ask("export", CampaignRequest, request, ExportBundle);
  const text = Buffer.from(await download(client, bundle.report)).toString("utf8");
  const [told] = (JSON.parse(text) as { campaigns: ReturnType<typeof campaignReport>[] }).campaigns;
  const own = campaignReport(state);
  for (const key of ["id", "outcome", "simulated", "champion", "ratioToSeed"] as const)
    if (JSON.stringify(told?.[key]) !== JSON.stringify(own[key]))
      throw new Error(`the report's ${key} is not what the campaign's log says`);
  if (!own.simulated || own.champion === null || bundle.git === null)
    throw new Error("the report names no champion, or does not say that it is simulated");
  await download(client, bundle.git);
  const { point = 0, lo = 0, hi = 0 } = own.ratioToSeed ?? {};
  return `SIMULATED: ${point.toFixed(2)}× [${lo.toFixed(2)}, ${hi.toFixed(2)}] over the seed; report and git bundle have the digests that they should have`;
}

/** Nothing of it goes on: its campaign has ended, its agent's key opens nothing any more. */
async function settle(client: ApiClient, agentId: string, campaign: string | null, step: Step): Promise<void> {
  await step("clean up", async () => {
    if (campaign !== null)
      await client.change("cancel", campaign).catch((error: unknown) => {
        // It has ended by itself, which is how it should.
        if (!(error instanceof ApiProblem && error.code === "conflict")) throw error;
      });
    const reason = "simulated, for a smoke test that is over";
    const revoke = { v: 1, kind: "agent.decision", agentId, decision: "revoke", reason } as const;
    await client.ask("agent-decide", AgentDecision, revoke, AgentDecided);
    const [row] = await rows(client, agentId);
    if (row?.state !== "revoked") throw new Error(`agent ${agentId} is ${row?.state ?? "unknown"} after it was revoked`);
    return [null, `agent ${agentId} is revoked; campaign ${campaign ?? "none"} stays in the log as ended and simulated`];
  });
}

async function untilRow(client: ApiClient, agentId: string, signal: AbortSignal): Promise<AgentRow> {
  for (;;) {
    const [row] = await rows(client, agentId);
    if (row && row.devices.length > 0) return row;
    if (row?.state === "incompatible") throw new Error(row.note ?? "incompatible");
    if (signal.aborted) throw new Error(`agent ${agentId} was not listed with its device in time; it is ${row?.state ?? "unknown"}`);
    await delay(50, signal);
  }
}

/** The agent's row. The list begins after an id: its own without the last character sorts before it. */
async function rows(client: ApiClient, agentId: string): Promise<AgentRow[]> {
  const page = await client.ask("agents", AgentsRequest, { v: 1, kind: "agents.request", after: agentId.slice(0, -1) }, AgentsPage);
  return page.agents.filter((row) => row.agentId === agentId);
}
