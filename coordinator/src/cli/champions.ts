import { RequalifyCause } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import { commandLine } from "../command-line.ts";
import { championNamed, championsOf, type Champion } from "../findings/champions.ts";
import { smallestSet } from "../findings/cover.ts";
import { matrixOf, type Cell, type Matrix } from "../findings/matrix.ts";
import { newestChampions, placeOf, requalification, trialTarget } from "../findings/requalify.ts";
import { standingOf } from "../findings/standing.ts";
import { channels, readChannel } from "../release/channel.ts";
import { showRatio, table } from "../report/summary-table.ts";
import { campaignLogs, type CampaignLogs } from "./campaign-logs.ts";
import { connectClient } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import { toldIn } from "./findings.ts";
import type { Invocation } from "./invocation.ts";

/** What the verbs about champions know: every campaign of the coordinator, or of the folder. */
export interface Known {
  logs: CampaignLogs;
  campaigns: Campaign[];
  /** Newest first. */
  champions: Champion[];
}

export async function knownTo(invocation: Invocation): Promise<Known> {
  const logs = await campaignLogs(invocation);
  const campaigns = toldIn(logs).map((t) => t.state);
  return { logs, campaigns, champions: championsOf(campaigns) };
}

/** Throws CliError where there is no such champion. */
export function championOfName({ champions }: Known, named: string | undefined): Champion {
  const found = championNamed(champions, named);
  if (found) return found;
  const there = champions.map((c) => c.name).join(", ") || "none";
  throw new CliError(EXIT.badInput, `there is no champion${named === undefined ? "" : ` ${named}`}; there are: ${there}`);
}

/** Every champion, how it stands, and which channels serve it. */
export async function champions(invocation: Invocation): Promise<void> {
  const known = await knownTo(invocation);
  const serving = channels(invocation.settings.data).map((name) => readChannel(invocation.settings.data, name));
  const rows = known.champions.map((champion) => ({
    ...champion.release,
    name: champion.name,
    ratio: champion.crowned.repeat,
    isa: champion.campaign.device?.isa ?? null,
    crownedAt: champion.crowned.at,
    standing: standingOf(champion, known.campaigns, known.logs.agents),
    channels: serving.filter((c) => c.current?.release.treeDigest === champion.release.treeDigest).map((c) => c.name),
  }));
  const text = table(
    ["champion", "target", "isa", "over what was before", "state", "channels", "why"],
    rows.map((r) => [r.name, r.target, r.isa ?? "?", showRatio(r.ratio), r.standing.state, r.channels.join(",") || "—", r.standing.reason]),
  );
  invocation.output.answer({ v: 1, kind: "champions", champions: rows }, rows.length > 0 ? text : "no champion has been crowned");
}

/** Submits a trial for a champion, or for the newest of every place. Throws CliError where nothing has changed and no cause is given. */
export async function requalify(
  invocation: Invocation,
  named: string | undefined,
  options: { all?: boolean; because?: string },
): Promise<void> {
  const cause = options.because === undefined ? null : causeNamed(options.because);
  if ((named === undefined) === (options.all !== true)) throw new CliError(EXIT.badInput, "name a champion, or give --all");
  await using client = await connectClient(invocation.settings, invocation.context);
  const known = await knownTo(invocation);
  const chosen = named === undefined ? newestChampions(known.champions) : [championOfName(known, named)];
  const { campaigns, champions: all } = known;
  const submitted: { champion: string; because: RequalifyCause; what: string; campaign: string }[] = [];
  const skipped: { champion: string; why: string }[] = [];
  for (const champion of chosen) {
    const { state, changes, reason } = standingOf(champion, campaigns, known.logs.agents);
    const because = cause ?? changes[0]?.cause ?? null;
    if (state === "requalifying") skipped.push({ champion: champion.name, why: reason });
    else if (because === null) skipped.push({ champion: champion.name, why: `${reason}; to test it all the same: --because schedule` });
    else {
      const trial = requalification(champion, because, { champions: all, campaigns, agents: known.logs.agents });
      const what = changes.filter((c) => c.cause === because).map((c) => c.what);
      submitted.push({ champion: champion.name, because, what: what.join("; "), campaign: (await client.submit(trial)).campaign });
    }
  }
  const lines = [
    ...submitted.map(
      (s) => `${s.champion} is tested for ${s.because}${s.what === "" ? "" : ` (${s.what})`}: ${commandLine("watch", [s.campaign])}`,
    ),
    ...skipped.map((s) => `${s.champion} is not tested: ${s.why}`),
  ];
  // Whoever named one asked for it; with --all there may be nothing to do.
  if (submitted.length === 0 && named !== undefined) throw new CliError(EXIT.negative, lines.join("\n"));
  invocation.output.answer({ v: 1, kind: "requalify", submitted, skipped }, lines.join("\n") || "no champion has been crowned");
}

function causeNamed(text: string): RequalifyCause {
  const parsed = RequalifyCause.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new CliError(EXIT.badInput, `--because ${text}: not a cause; allowed: ${RequalifyCause.options.join(", ")}`);
}

/** Each place's newest champion on each target, and the fewest stacks that keep most of the gain; --measure submits a trial for what is unknown. */
export async function matrix(invocation: Invocation, options: { measure?: boolean; keep: string }): Promise<void> {
  const keep = Number(options.keep);
  if (!(keep > 0 && keep <= 1)) throw new CliError(EXIT.badInput, `--keep ${options.keep}: not a share; allowed: above 0 and up to 1`);
  const known = await knownTo(invocation);
  const found = matrixOf(newestChampions(known.champions), known.campaigns);
  const gains = found.rows.map(({ cells }) => cells.map((c) => (c.known === "measured" ? c.ratio.point : null)));
  const cover = smallestSet(gains, keep);
  const stacks = cover.rows.map((r) => found.rows[r]?.champion.name ?? "");
  const unknown = found.rows.flatMap(({ cells }) => cells.filter((c) => c.known === "no" && c.why === "not measured")).length;
  const submitted = options.measure === true ? await measure(invocation, found, known) : [];
  const rows = found.rows.map(({ champion, cells }) => ({ champion: champion.name, cells }));
  const text = [
    table(
      ["champion", ...found.columns],
      rows.map((r) => [r.champion, ...r.cells.map(shown)]),
    ),
    `fewest stacks that keep ${keep} of the gain${cover.exact ? "" : " (greedy)"}: ${stacks.join(", ") || "none, the seed serves all"}`,
    ...(unknown > 0
      ? [`${unknown} cells are unknown (?)${submitted.length > 0 ? `; measured by: ${submitted.join(", ")}` : "; measure them: --measure"}`]
      : []),
  ];
  const answer = { v: 1, kind: "matrix", columns: found.columns, rows, keep, stacks, exact: cover.exact, unknown, submitted };
  invocation.output.answer(answer, found.rows.length > 0 ? text.join("\n\n") : "no champion has been crowned");
}

function shown(cell: Cell): string {
  if (cell.known === "measured") return `${cell.ratio.point.toFixed(2)}× [${cell.ratio.lo.toFixed(2)}, ${cell.ratio.hi.toFixed(2)}]`;
  return cell.known === "fails" ? "fails" : cell.why === "not measured" ? "?" : "—";
}

/** One trial a column, of all champions that are unknown there; none where one is under way. */
async function measure(invocation: Invocation, { columns, rows }: Matrix, { campaigns }: Known): Promise<string[]> {
  await using client = await connectClient(invocation.settings, invocation.context);
  const submitted: string[] = [];
  for (const [i, column] of columns.entries()) {
    const there = campaigns.filter((c) => c.device !== null && placeOf(c) === column);
    const unknown = rows.filter(({ cells }) => cells[i]?.known === "no" && cells[i].why === "not measured");
    const target = trialTarget(there[0]?.target.name ?? "", there[0]?.device ?? null, there);
    const underWay = there.some((c) => c.options.trial?.purpose === "matrix" && c.ended === null);
    if (!target || unknown.length === 0 || underWay) continue;
    const tested = unknown.slice(0, 32).map(({ champion }) => champion.release.champion);
    const trial = { purpose: "matrix" as const, because: null, champions: tested };
    const options = { baselines: [], repeat: commandLine("matrix", ["--measure"]), trial };
    submitted.push((await client.submit({ target, options })).campaign);
  }
  return submitted;
}
