import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CampaignEvent, decode, Job, JobResult, type CampaignFact } from "@vibeserve/shared";

/** Facts of a recorded campaign; an installation without tests lacks them. */
const MESSAGES = join(import.meta.dirname, "../../../../test/fixtures/messages");

interface Fixture {
  bytes: string;
}
export const bytesOf = (path: string): Uint8Array =>
  Buffer.from((JSON.parse(readFileSync(join(MESSAGES, path), "utf8")) as Fixture).bytes, "base64");
const factOf = (file: string): CampaignFact => decode(CampaignEvent, bytesOf(`CampaignEvent/${file}.json`), file).fact;

const STEPS = ["build", "check", "bench"] as const;
const ANSWERS = { build: "built", check: "checked", bench: "measured" } as const;

/**
 * What a campaign with that many experiments would have in its log, ten facts each, made of the frozen messages of a recorded one: real sizes, other ids. `state`:
 * open campaigns have asked for one more job, the last of these facts.
 */
export function* history(campaign: string, experiments: number, state: "ended" | "open", pool: string): Generator<CampaignFact> {
  const { created, bound, proposed, drafted, settled, ended, jobs, results } = (frozen ??= read());
  yield created;
  yield bound;
  const jobOf = (step: (typeof STEPS)[number], x: number): Job => ({
    ...jobs[step],
    ...{ id: `${campaign}_e${x}_${step}`, campaign, experiment: `e${x}`, attempt: 1, pool },
  });
  const begun = (x: number): CampaignFact[] => [
    { ...proposed, experimentId: `e${x}` },
    { ...drafted, experimentId: `e${x}` },
    { type: "job.requested", job: jobOf("build", x) },
  ];
  yield { ...drafted, experimentId: "seed" };
  for (const step of ["build", "check"] as const) {
    const job = { ...jobs[step], id: `${campaign}_seed_${step}`, campaign, experiment: "seed", attempt: 1, pool };
    yield { type: "job.requested", job };
    yield { type: "job.settled", result: { ...results[step], campaign, jobId: job.id, attempt: 1 }, accepted: true, why: "" };
  }
  for (let x = 1; x <= experiments; x++) {
    yield* begun(x);
    for (const step of STEPS) {
      if (step !== "build") yield { type: "job.requested", job: jobOf(step, x) };
      const result = { ...results[step], campaign, jobId: jobOf(step, x).id, attempt: 1 };
      yield { type: "job.settled", result, accepted: true, why: "current attempt and lease" };
    }
    yield { type: "note.recorded", topic: "bench", text: `experiment ${x}` };
    yield { ...settled, experimentId: `e${x}`, checkpoint: "discard" };
  }
  if (state === "ended") yield ended;
  else yield* begun(experiments + 1);
}

let frozen: ReturnType<typeof read> | null = null;
function read() {
  const typed = <T extends CampaignFact["type"]>(file: string, type: T): Extract<CampaignFact, { type: T }> => {
    const fact = factOf(file);
    if (fact.type !== type) throw new Error(`${file} is ${fact.type}`);
    return fact as Extract<CampaignFact, { type: T }>;
  };
  return {
    created: typed("01-campaign-created", "campaign.created"),
    bound: typed("02-device-bound", "device.bound"),
    proposed: typed("16-experiment-proposed", "experiment.proposed"),
    drafted: typed("17-experiment-drafted-e1", "experiment.drafted"),
    settled: typed("18-experiment-settled", "experiment.settled"),
    ended: typed("22-campaign-ended", "campaign.ended"),
    jobs: Object.fromEntries(STEPS.map((s) => [s, decode(Job, bytesOf(`Job/${s}.json`), s)])) as Record<(typeof STEPS)[number], Job>,
    results: Object.fromEntries(STEPS.map((s) => [s, decode(JobResult, bytesOf(`JobResult/${ANSWERS[s]}.json`), s)])) as Record<
      (typeof STEPS)[number],
      JobResult
    >,
  };
}
