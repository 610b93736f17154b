import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { issuesOf, sha256, StackExport, StackManifest } from "@vibeserve/shared";
import { z } from "zod";
import { filesUnder } from "../bundle/files-under.ts";
import { built } from "../campaign/campaign.machine.ts";
import { isScript, type CandidateFiles } from "../checkpoint/candidate-files.ts";
import { CampaignRepository } from "../checkpoint/repository.ts";
import { tarOf } from "../checkpoint/tar.ts";
import type { Settings } from "../config.ts";
import type { Champion } from "../findings/champions.ts";
import { messageOf } from "../process/message-of.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
import { evidenceFiles } from "../release/evidence.ts";
import { stackFiles } from "../release/stack-files.ts";
import { agentArgs, askAgent } from "./agent-process.ts";
import { championOfName, knownTo } from "./champions.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { prepare } from "./prepare.ts";

export interface ExportStackOptions {
  to: string;
  /** False: --no-build. */
  build: boolean;
  /** False: --no-setup. */
  setup: boolean;
}

const Built = z.object({ buildDigest: z.string(), cached: z.boolean(), sandbox: z.string(), compiler: z.string() });
/** As long as a build job may take. */
const BUILD_LIMIT_MS = 300_000;

/**
 * Writes a champion into an empty folder so that it can be built and served without VibeServe. What is built is built by the agent, in its sandbox: a champion's
 * code is no more trusted than a candidate's.
 */
export async function exportStack(invocation: Invocation, named: string | undefined, options: ExportStackOptions): Promise<void> {
  const { settings, output, context } = invocation;
  if (context !== undefined)
    throw new CliError(EXIT.badInput, "--to needs the data folder of the campaign: run it where the coordinator is");
  const to = options.to;
  if (existsSync(to) && readdirSync(to).length > 0) throw new CliError(EXIT.badInput, `${to} is not empty`);
  const known = await knownTo(invocation);
  const champion = championOfName(known, named);
  const { campaign, release } = champion;
  const tree = await treeOf(settings, champion);
  const manifest = manifestOf(tree);
  const measured = built(campaign, release.champion.experimentId);
  if (!measured) throw new Error(`${champion.name} was crowned without a build`);

  mkdirSync(join(to, "source"), { recursive: true });
  for (const [path, bytes] of tree) write(join(to, "source", path), bytes, isScript(bytes));
  const compiler = campaign.agent?.tools.map((t) => `${t.name} ${t.version}`).join(", ") ?? "";
  for (const [path, text] of stackFiles(manifest, release, compiler || "a compiler that its agent did not name"))
    write(join(to, path), Buffer.from(text), path.endsWith(".sh"));
  const events = known.logs.logs.find(([first]) => first?.campaign === campaign.id) ?? [];
  for (const [path, text] of evidenceFiles(champion, events)) write(join(to, "evidence", path), Buffer.from(text), false);
  const build = options.build ? await buildIn(invocation, options, champion, tree) : null;
  const said: StackExport = { v: 1, kind: "stack.export", release, buildDigest: measured.buildDigest, build, files: await filesIn(to) };
  writeFileSync(join(to, "export.json"), `${JSON.stringify(StackExport.parse(said), null, 2)}\n`);
  const same = build?.buildDigest === measured.buildDigest;
  const what = build
    ? `build/ is ${same ? "what was measured, byte for byte" : "another than what was measured: by another compiler, or its agent was simulated"} (${build.compiler}, sandbox ${build.sandbox})`
    : "nothing was built: run build.sh";
  output.answer({ ...said, folder: to, same }, `${champion.name} in ${to}; ${what}\n  serve it: ${join(to, "serve.sh")} MODEL SOCKET`);
}

async function buildIn(
  { settings, output }: Invocation,
  options: ExportStackOptions,
  { release: r }: Champion,
  files: CandidateFiles,
): Promise<z.infer<typeof Built>> {
  const { to, setup } = options;
  const assets = setup ? await prepare(settings, output, new AbortController().signal) : null;
  using scratch = temporaryFolder("export");
  const tar = join(scratch.path, "tree.tar");
  writeFileSync(tar, tarOf(files));
  const [main, ...agent] = agentArgs(settings, { assets, unsafeNoSandbox: false }, []);
  const order = ["--tree", tar, "--tree-digest", r.treeDigest, "--provenance", r.provenance, "--out", join(to, "build")];
  return await askAgent([main ?? "", "build", ...agent, ...order], Built, BUILD_LIMIT_MS).catch((error: unknown) => {
    throw new CliError(
      EXIT.negative,
      `${to} is written but not built: ${messageOf(error)}\n  without a build: --no-build, into another folder`,
    );
  });
}

async function treeOf(settings: Settings, { campaign, release }: Champion): Promise<CandidateFiles> {
  const dir = join(settings.data, "git");
  if (!existsSync(join(dir, `${campaign.id}.git`)))
    throw new CliError(EXIT.badInput, `${dir} has no repository of campaign ${campaign.id}`);
  const putArtifact = () => Promise.reject(new Error("exporting stores nothing"));
  return (await CampaignRepository.open({ dir, path: settings.path, putArtifact }, campaign.id)).readTree(release.commit);
}

function manifestOf(tree: CandidateFiles): StackManifest {
  const parsed = StackManifest.safeParse(JSON.parse(Buffer.from(tree.get("stack.json") ?? "{}").toString("utf8")));
  if (parsed.success) return parsed.data;
  throw new CliError(EXIT.negative, `its stack.json is not one: ${issuesOf(parsed.error)}`);
}

function write(path: string, bytes: Uint8Array, executable: boolean): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, bytes);
  chmodSync(path, executable ? 0o755 : 0o644);
}

const filesIn = async (folder: string): Promise<StackExport["files"]> =>
  (await filesUnder(folder)).sort().map((path) => {
    const bytes = readFileSync(join(folder, path));
    return { path, sha256: sha256(bytes), bytes: bytes.length };
  });
