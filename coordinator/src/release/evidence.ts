import type { CampaignEvent, CampaignFact, Outcome } from "@vibeserve/shared";
import type { Champion } from "../findings/champions.ts";
import { jobId, jobOutcome } from "../campaign/job-effect.ts";

/** Facts that tell how a champion came about, beside those that name its experiment. */
const ABOUT_ALL: ReadonlySet<CampaignFact["type"]> = new Set(["campaign.created", "device.bound", "search.ended", "campaign.ended"]);

/** Why a champion is believed, as files. Every result carries its agent's signature; the key to check it with is in measurements.json. Pure. */
export function evidenceFiles({ campaign, crowned, release }: Champion, events: readonly CampaignEvent[]): Map<string, string> {
  const id = crowned.experimentId;
  const of = (step: string): Outcome | null => jobOutcome(campaign, id, step);
  const [crown, repeat, check] = [of("crown"), of("repeat"), of("crown-check")];
  const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
  const { agent, device, target } = campaign;
  const certificates = [crown, repeat].flatMap((o) => (o?.status === "measured" ? [o.challenger.certificate, o.champion.certificate] : []));
  return new Map([
    ["champion.json", json({ release, bindings: crowned.bindings, target })],
    [
      "measurements.json",
      json({ agent: { agentId: agent?.agentId, publicKey: agent?.publicKey, tools: agent?.tools, device }, crown, repeat }),
    ],
    ["certificates.json", json(certificates)],
    ["check-report.json", json(check?.status === "checked" ? check.report : check)],
    [
      "log.jsonl",
      events
        .filter(({ fact }) => ABOUT_ALL.has(fact.type) || concerns(fact, id))
        .map((e) => `${JSON.stringify(e)}\n`)
        .join(""),
    ],
  ]);
}

function concerns(fact: CampaignFact, id: string): boolean {
  if (fact.type === "job.requested") return fact.job.experiment === id;
  if (fact.type === "job.settled") return fact.result.jobId.startsWith(jobId({ id: fact.result.campaign }, id, ""));
  return "experimentId" in fact && fact.experimentId === id;
}
