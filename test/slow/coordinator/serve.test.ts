import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { sha256 } from "@vibeserve/shared";
import { expect, test } from "vitest";
import { writeChampion } from "../../../coordinator/src/checkpoint/champion-file.ts";
import { CampaignRepository } from "../../../coordinator/src/checkpoint/repository.ts";
import { readTargetFile } from "../../../coordinator/src/cli/target-file.ts";
import { loadCatalog } from "../../../coordinator/src/stack/catalog.ts";
import { composeTree, seedBindings } from "../../../coordinator/src/stack/compose.ts";
import { gone, site } from "../../kit/sites.ts";

const root = join(import.meta.dirname, "../../..");
const target = readTargetFile(join(root, "targets/cpu/chat.yaml"));

/** What crowning leaves in a data folder, for the real seed: its commit, its branch, and what serving needs beside them. */
async function crownSeed(data: string): Promise<string> {
  const campaign = "served-1";
  const putArtifact = async (bytes: Uint8Array) => ({ digest: sha256(bytes), bytes: bytes.length });
  const repository = await CampaignRepository.open({ dir: join(data, "git"), path: process.env["PATH"] ?? "", putArtifact }, campaign);
  const files = composeTree(await loadCatalog(root, target.seed), seedBindings(), []);
  const { commit, treeDigest } = await repository.commitTree({ experimentId: "e1", files, message: "seed", parent: null, at: 1_000 });
  const branch = await repository.crown(commit);
  const { name, model, device } = target;
  const fixed = { v: 1, kind: "champion", provenance: "shipped", sandbox: "bubblewrap", crownedAt: 1_000 } as const;
  writeChampion(join(data, "git"), { ...fixed, campaign, target: name, commit, treeDigest, branch, model, device });
  return commit;
}

/** Everything that this process started, and what that started. */
function descendants(pid: number): number[] {
  const parents = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), parent: parentOf(name) }));
  const below = (of: number): number[] => parents.filter((p) => p.parent === of).flatMap((p) => [p.pid, ...below(p.pid)]);
  return below(pid);
}

function parentOf(pid: string): number | null {
  try {
    return Number(/\) \S (\d+) /.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))?.[1]);
  } catch {
    return null; // ended in between
  }
}

test("serve builds the champion, answers a streamed chat over loopback TCP, and Ctrl-C ends all of it", async () => {
  using s = site({ VIBESERVE_ROOT: root });
  const commit = await crownSeed(s.at.data);
  const serving = s.at.run("serve", "--port", "0", "--json");
  await serving.printed(/"kind":"serving"/);
  const said = JSON.parse(serving.out()) as { url: string };
  expect(said).toMatchObject({ v: 1, campaign: "served-1", commit, branch: "champion/served-1", model: target.model.name });
  expect(said.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);

  const models = (await (await fetch(`${said.url}/v1/models`)).json()) as { data: { id: string }[] };
  expect(models.data.map((m) => m.id)).toEqual([target.model.name]);

  const chat = { messages: [{ role: "user", content: "Say hello." }], max_tokens: 6, ignore_eos: true, stream: true };
  const answer = await fetch(`${said.url}/v1/chat/completions`, { method: "POST", body: JSON.stringify(chat) });
  expect(answer.headers.get("content-type")).toMatch(/^text\/event-stream/);
  const events = (await answer.text()).trim().split("\n\n");
  expect(events.pop()).toBe("data: [DONE]");
  const choices = events.map((e) => (JSON.parse(e.replace(/^data: /, "")) as { choices: Choice[] }).choices[0]);
  expect(choices.flatMap((c) => c?.token_ids ?? [])).toHaveLength(chat.max_tokens);
  expect(choices.map((c) => c?.delta?.content ?? "").join("")).toMatch(/\w/);

  const processes = descendants(serving.child.pid ?? 0);
  expect(processes.length).toBeGreaterThan(1);
  serving.child.kill("SIGINT");
  expect(await serving.ended).toBe(0);
  await gone(processes);
  await expect(fetch(`${said.url}/health`)).rejects.toThrow();

  const holder = createServer().listen(0, "127.0.0.1");
  await once(holder, "listening");
  const { port } = holder.address() as AddressInfo;
  const refused = s.at.run("serve", "--port", String(port));
  expect(await refused.ended).toBe(2);
  expect(refused.err()).toMatch(new RegExp(`address already in use 127\\.0\\.0\\.1:${port}`));
  holder.close();
});

interface Choice {
  token_ids?: number[];
  delta?: { content?: string };
}
