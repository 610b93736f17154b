import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { CampaignList, EmptyRequest, type CampaignEvent } from "@vibeserve/shared";
import { Broker } from "../broker/broker.ts";
import { connectBus } from "../bus/connect.ts";
import { skillFindings, type SkillFinding } from "../campaign/skill-findings.ts";
import type { Settings } from "../config.ts";
import { listCampaigns, readLog } from "../log/event-log.ts";
import { skillPath } from "../stack/catalog.ts";
import { parseSkillFile, type SkillFile } from "../stack/skill-file.ts";
import { lintSkills } from "../stack/skill-lint.ts";
import { additionPatch, newLines, withLines } from "../stack/skill-patch.ts";
import { connectClient, localContext } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { holdData } from "./up.ts";

/** Prints a patch that adds what ended campaigns of the data folder showed of each skill to its text. Changes no file. */
export async function propose({ settings, output }: Invocation, skills: ReadonlyMap<string, SkillFile>): Promise<void> {
  const read = existsSync(localContext(settings)) ? logsOfCoordinator : logsOfFolder;
  const logs = await read(settings, (line) => output.say(line));
  const findings = logs.flatMap(skillFindings).sort((a, b) => a.at - b.at);
  const { patch, patched } = await patchOf(settings.root, skills, findings);
  await mustStayClean(skills, patched);
  const campaigns = new Set(findings.map((f) => f.campaign)).size;
  const found = `${findings.length} findings of ${campaigns} ended campaigns`;
  const text =
    patch === ""
      ? `${found}; nothing that the skills do not hold`
      : `${found}; review this, then give it to: git apply\n${patch.trimEnd()}`;
  output.answer({ v: 1, kind: "skills.proposal", findings, patch }, text);
}

async function patchOf(root: string, skills: ReadonlyMap<string, SkillFile>, findings: readonly SkillFinding[]) {
  const patched = new Map(skills);
  const patches: string[] = [];
  for (const [id, mine] of Map.groupBy(findings, (f) => f.skill)) {
    if (!skills.has(id)) continue;
    const path = skillPath(root, id);
    const text = await readFile(path, "utf8");
    if (!text.endsWith("\n")) throw new CliError(EXIT.badInput, `${path} does not end with a line break`);
    const lines = newLines(text, mine);
    if (lines.length === 0) continue;
    patches.push(additionPatch(relative(root, path).split(sep).join("/"), text, lines));
    patched.set(id, parseSkillFile(path, withLines(text, lines)));
  }
  return { patch: patches.join(""), patched };
}

/** A patch never makes the linter complain of what it did not complain of before; fragments do not change, so no compiler is asked. */
async function mustStayClean(before: ReadonlyMap<string, SkillFile>, after: ReadonlyMap<string, SkillFile>): Promise<void> {
  const lint = async (all: ReadonlyMap<string, SkillFile>) =>
    (await lintSkills(all, { find: () => Promise.resolve(undefined) })).problems.map((p) => `${p.id}: ${p.message}`);
  const known = new Set(await lint(before));
  const fresh = (await lint(after)).filter((p) => !known.has(p));
  if (fresh.length > 0)
    throw new CliError(EXIT.negative, `the patch would not pass the linter; shorten these skills first: ${fresh.join("; ")}`);
}

type Read = (settings: Settings, say: (text: string) => void) => Promise<CampaignEvent[][]>;

const unread = (campaign: string, why: string) => `campaign ${campaign} can't be read and is left out: ${why}`;

const logsOfCoordinator: Read = async (settings, say) => {
  await using client = await connectClient(settings, undefined);
  const { campaigns, unreadable } = await client.ask("campaigns", EmptyRequest, { v: 1, kind: "request" }, CampaignList);
  for (const { campaign, reason } of unreadable) say(unread(campaign, reason));
  const logs: CampaignEvent[][] = [];
  for (const { campaign, state } of campaigns) if (state === "ended") logs.push(await client.events(campaign));
  return logs;
};

/** Only the broker is started: a coordinator would go on with what is unfinished. */
const logsOfFolder: Read = async (settings, say) => {
  if (!existsSync(join(settings.data, "nats"))) throw new CliError(EXIT.badInput, `${settings.data} holds no campaigns`);
  const lock = holdData(settings.data, null, "vibeserve skills propose");
  try {
    const logFile = join(settings.data, "logs", "nats.log");
    const binary = settings.natsServer;
    const broker = await Broker.start({
      binary,
      dir: join(settings.data, "nats"),
      logFile,
      host: "127.0.0.1",
      port: -1,
      log: () => undefined,
    });
    try {
      const nc = await connectBus({ servers: [broker.url], seed: broker.seeds.coordinator, principal: "coordinator" });
      const bus = { nc, js: jetstream(nc), jsm: await jetstreamManager(nc) };
      const logs: CampaignEvent[][] = [];
      for (const id of await listCampaigns(bus))
        try {
          logs.push((await readLog(bus, id)).map((l) => l.event));
        } catch (error) {
          say(unread(id, error instanceof Error ? error.message : String(error)));
        }
      await nc.close();
      return logs;
    } finally {
      await broker.close();
    }
  } finally {
    lock.release();
  }
};
