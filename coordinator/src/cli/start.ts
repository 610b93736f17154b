import { join, relative } from "node:path";
import type { SubmitRequest } from "@vibeserve/shared";
import type { ApiClient } from "../api/client.ts";
import { ApiProblem } from "../api/problem.ts";
import { commandLine } from "../command-line.ts";
import { eventLogger, openLog } from "../process/log-file.ts";
import { campaignReport } from "../report/report-model.ts";
import { summary } from "../report/summary-table.ts";
import { digestsHere, missingPart, weightsAsset } from "../setup/index.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { clearLeftovers, LocalMachine } from "./local-machine.ts";
import { prepare } from "./prepare.ts";
import { startSignals } from "./stop-signal.ts";
import { repeatWords, submission, type SubmissionOptions } from "./submission.ts";
import { hold } from "./up.ts";
import { follow, openView, type Watched } from "./watch.ts";

/** Held while a campaign is run in the folder by start or demo-fleet. */
export const startLock = (data: string): string => join(data, "start.lock");

export interface StartOptions extends SubmissionOptions {
  resume?: boolean;
  new?: boolean;
  record?: boolean;
  /** For this machine's agent. */
  unsafeNoSandbox?: boolean;
  /** False: --no-setup. */
  setup: boolean;
}

/**
 * Everything on this machine: set-up, coordinator, agent, one campaign, its report. Returns if a champion was proven; else throws CliError. The first
 * stop signal pauses the campaign and stops all in order; the second kills.
 */
export async function start(invocation: Invocation, file: string | undefined, options: StartOptions): Promise<void> {
  const signals = startSignals();
  const { settings, output } = invocation;
  const target = file ?? join(settings.root, "targets/cpu/chat.yaml");
  const request = options.resume === true ? null : submission(target, options, commandLine("start", repeatWords(file, options)));
  const lock = hold(startLock(settings.data), "vibeserve start");
  try {
    const log = eventLogger(openLog(settings.data, "start", settings.logLevel));
    await clearLeftovers(settings, log);
    const assets = options.setup ? await prepare(settings, output, signals.stop) : null;
    // In a bundle without its weights archive: better now than as the device's failure.
    if (assets?.weights === null && request?.target.model.sha256 === digestsHere(weightsAsset)?.files[""])
      throw new CliError(EXIT.badInput, missingPart(weightsAsset).report());
    const machine = await LocalMachine.start(
      {
        settings,
        agent: { assets, unsafeNoSandbox: options.unsafeNoSandbox === true },
        natsServer: assets?.natsServer ?? settings.natsServer,
        record: options.record === true || settings.record,
        trouble: (message) => void process.stderr.write(`vibeserve: ${message}\n`),
        log,
      },
      signals.stop,
    );
    signals.kill = () => machine.kill();
    try {
      const id = await begin(machine.client, request, options);
      const view = openView(output.view);
      const following = follow(machine.client, id, view, signals.stop, { untilPaused: true });
      const watched = await Promise.race([following, machine.failed]).finally(() => view.close());
      if (watched.kind === "stopped") await pause(machine.client, id);
      await machine.stop();
      conclude(invocation, watched, id);
    } catch (error) {
      await machine.stop();
      throw error;
    }
  } finally {
    lock.release();
  }
}

/** The campaign to watch: a new one, or the unfinished one. */
async function begin(client: ApiClient, request: SubmitRequest | null, options: StartOptions): Promise<string> {
  const { campaigns } = await client.campaigns();
  const unfinished = campaigns.find((c) => c.state !== "ended");
  if (request === null) {
    if (!unfinished)
      throw new CliError(EXIT.badInput, `there is no unfinished campaign to resume; begin one with: ${commandLine("start")}`);
    if (unfinished.state === "paused") await client.change("resume", unfinished.campaign);
    return unfinished.campaign;
  }
  if (unfinished && options.new !== true)
    throw new CliError(
      EXIT.badInput,
      `campaign ${unfinished.campaign} (target ${unfinished.target}) is ${unfinished.state}: ${unfinished.reason}\n  go on with it: ${commandLine("start", ["--resume"])}\n  give it up and begin anew: ${commandLine("start", ["--new"])}`,
    );
  for (const old of campaigns) if (old.state !== "ended") await client.change("cancel", old.campaign);
  return (await client.submit(request)).campaign;
}

async function pause(client: ApiClient, campaign: string): Promise<void> {
  try {
    await client.change("pause", campaign);
  } catch (error) {
    // It has ended, or was paused, a moment ago: there is nothing left to pause.
    if (!(error instanceof ApiProblem && error.code === "conflict")) throw error;
  }
}

function conclude({ settings, output }: Invocation, watched: Watched, id: string): void {
  const where = relative(process.cwd(), settings.data) || ".";
  const data = where === ".vibeserve" ? [] : ["--data", where];
  const again = commandLine("start", ["--resume", ...data]);
  if (watched.kind === "stopped") throw new CliError(EXIT.negative, `campaign ${id} is paused; go on with: ${again}`);
  if (watched.kind === "paused")
    throw new CliError(EXIT.negative, `campaign ${id} was paused: ${watched.reason}\n  when that is mended, go on with: ${again}`);
  const report = campaignReport(watched.campaign);
  const serve = commandLine("serve", data);
  output.answer({ v: 1, kind: "report", campaigns: [report] }, summary(report, { report: join(where, "report.html"), serve }));
  if (watched.outcome !== "proven") throw new CliError(EXIT.negative, `no champion: ${watched.outcome}`);
}
