import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseJson } from "@vibeserve/shared";
import { z } from "zod";
import { readChampion, type ChampionFile } from "../checkpoint/champion-file.ts";
import { CampaignRepository } from "../checkpoint/repository.ts";
import { tarOf } from "../checkpoint/tar.ts";
import { commandLine } from "../command-line.ts";
import { agentEnvironment, type Settings } from "../config.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
import { agentArgs } from "./agent-process.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { prepare } from "./prepare.ts";
import { aborted, stopSignal } from "./stop-signal.ts";

const DEFAULT_PORT = 8080;
const Serving = z.object({ kind: z.literal("serving"), url: z.string(), sandbox: z.string() });

/** Builds and serves a champion from its git branch until stopped. Needs no coordinator: the agent's own machinery does it, in its own process. */
export async function serve(invocation: Invocation, id: string | undefined, options: { port?: string; setup: boolean }): Promise<void> {
  const signal = stopSignal();
  const { settings, output } = invocation;
  const port = options.port === undefined ? DEFAULT_PORT : Number(options.port);
  if (!Number.isInteger(port) || port < 0 || port > 65535)
    throw new CliError(EXIT.badInput, `--port ${options.port ?? ""}: not a port; allowed: 0 to 65535`);
  const champion = readChampion(join(settings.data, "git"), id ?? null);
  if (!champion)
    throw new CliError(
      EXIT.badInput,
      id === undefined
        ? `no champion has been crowned in ${settings.data}; run ${commandLine("start")} first`
        : `campaign ${id} has no champion`,
    );
  const assets = options.setup ? await prepare(settings, output, signal) : null;
  using scratch = temporaryFolder("serve");
  const tar = join(scratch.path, "tree.tar");
  writeFileSync(tar, await championTar(settings, champion));
  const [main, ...agent] = agentArgs(settings, { assets, unsafeNoSandbox: false }, []);
  const { treeDigest, provenance, model, deviceCount } = champion;
  const args = [
    ...[main ?? "", "serve", ...agent, "--tree", tar, "--tree-digest", treeDigest, "--port", String(port), "--provenance", provenance],
    ...["--model-file", model.file, "--model-sha256", model.sha256, "--model-name", model.name],
    ...(deviceCount === undefined ? [] : ["--devices", String(deviceCount)]),
  ];
  const child = spawn(process.execPath, args, { detached: true, stdio: ["ignore", "pipe", "pipe", "ipc"], env: agentEnvironment() });
  void aborted(signal).then(() => child.kill("SIGTERM"));
  await follow(child, invocation, champion);
}

/** The very tar that was built and measured: same files, same bytes, so that the agent's cache knows it. */
async function championTar(settings: Settings, champion: ChampionFile): Promise<Buffer> {
  const putArtifact = () => Promise.reject(new Error("serving stores nothing"));
  const repository = await CampaignRepository.open(
    { dir: join(settings.data, "git"), path: settings.path, putArtifact },
    champion.campaign,
  );
  await using tree = await repository.openWorktree(`serve-${process.pid}`, champion.commit);
  return tarOf(tree.files());
}

async function follow(child: ChildProcess, { output }: Invocation, champion: ChampionFile): Promise<void> {
  const errors: string[] = [];
  if (child.stderr)
    createInterface({ input: child.stderr }).on("line", (line) => {
      errors.push(line);
      if (errors.length > 20) errors.shift();
    });
  if (child.stdout)
    createInterface({ input: child.stdout }).on("line", (line) => {
      const serving = Serving.safeParse(parseJson(line));
      if (!serving.success) return;
      const { url, sandbox } = serving.data;
      const { campaign, commit, branch, model } = champion;
      output.answer(
        { v: 1, kind: "serving", url, campaign, commit, branch, model: model.name, sandbox },
        servingText(url, champion, sandbox),
      );
    });
  const [code, by] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
  if (code === 0) return;
  const said = errors.join("\n");
  throw new CliError(
    code === 2 ? EXIT.badInput : EXIT.negative,
    `serving ended with ${code ?? by ?? "?"}${said === "" ? "" : `\n${said}`}`,
  );
}

function servingText(url: string, { campaign, branch, commit, model }: ChampionFile, sandbox: string): string {
  return [
    `serving the champion of campaign ${campaign} (branch ${branch}, commit ${commit.slice(0, 12)}, ${model.name}, sandbox ${sandbox})`,
    `  ${url}/v1/chat/completions, OpenAI-compatible; Ctrl-C stops it. Try:`,
    `  curl -s ${url}/v1/chat/completions -H 'content-type: application/json' -d '{"messages":[{"role":"user","content":"Say hello."}],"max_tokens":32,"temperature":0}'`,
  ].join("\n");
}
