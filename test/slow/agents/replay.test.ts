import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { CampaignEvent, type CampaignFact } from "@vibeserve/shared";
import type { Report } from "../../../coordinator/src/report/report-model.ts";
import { SANDBOX } from "../../agents/command-kit.ts";
import { recording } from "../../fixtures/transcripts/recording.ts";
import { replayServer } from "../../kit/replay-server.ts";
import { tempDir } from "../../kit/temp-dir.ts";

// Real builds, checks and measurements of every candidate that the models wrote: some 15 minutes on two cores.
vi.setConfig({ testTimeout: 2_400_000 });

const MAIN = join(import.meta.dirname, "../../../coordinator/src/main.ts");
const CANARY = "sk-canary-replay-5b1e";

// Code of models runs nowhere without a sandbox.
test.skipIf("refused" in SANDBOX)("the recorded campaign replays on this machine to a champion that its models wrote", async () => {
  using dir = tempDir("replay");
  const recorded = recording("cpu-chat");
  await using server = await replayServer(recorded);
  const data = join(dir.path, "data");
  const vibeserve = (...args: string[]): { child: ChildProcess; out: () => string } => {
    const env = { ...process.env, ANTHROPIC_API_KEY: CANARY, ANTHROPIC_BASE_URL: server.url };
    const child = spawn(process.execPath, [MAIN, ...args, "--data", data], { env, cwd: dir.path, stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (out += chunk.toString()));
    return { child, out: () => out };
  };

  let start = vibeserve("start", recorded.target);
  let [code] = (await once(start.child, "exit")) as [number | null];
  // A device that others disturb three times pauses its campaign, and a person looks at it.
  for (let looked = 0; code !== 0 && looked < 4 && /paused: .*\(device\)/.test(start.out()); looked++) {
    start = vibeserve("start", "--resume");
    [code] = (await once(start.child, "exit")) as [number | null];
  }
  // Nobody's speed is asserted: whatever it is on this machine, the claim rule holds, for code that a model wrote.
  expect(code, start.out().slice(-4_000)).toBe(0);
  const report = JSON.parse(readFileSync(join(data, "report.json"), "utf8")) as Report;
  expect(report.campaigns[0]?.ratioToSeed?.lo).toBeGreaterThan(1);
  expect(report.campaigns[0]?.ratioToSeed?.pairs).toBeGreaterThanOrEqual(4);

  const up = vibeserve("up");
  await vi.waitUntil(() => up.out().includes("coordinator ready"), 60_000);
  const out = join(dir.path, "export");
  const [exported] = (await once(vibeserve("export", "--out", out).child, "exit")) as [number | null];
  expect(exported).toBe(0);
  up.child.kill("SIGTERM");
  await once(up.child, "exit");
  const lines = readFileSync(join(out, "events.jsonl"), "utf8").trim().split("\n");
  const facts = lines.map((line) => CampaignEvent.parse(JSON.parse(line)).fact);
  const of = <T extends CampaignFact["type"]>(type: T) => facts.filter((f): f is Extract<CampaignFact, { type: T }> => f.type === type);

  const [crowned] = of("champion.crowned");
  expect(of("experiment.proposed").find((f) => f.experimentId === crowned?.experimentId)?.author).toBe("model");
  expect(new Set(of("turn.requested").map((f) => f.role)).size).toBe(4);
  // What the recording shows of the rules, on this machine's own builds and checks.
  expect(of("experiment.proposed").length).toBeGreaterThanOrEqual(6);
  const returned = of("experiment.returned").map((f) => f.reason);
  expect(returned.some((reason) => reason.startsWith("accuracy: "))).toBe(true);
  expect(returned.some((reason) => reason.startsWith("vetoed: "))).toBe(true);
  const strategies = of("experiment.settled").map((f) => f.strategy);
  expect(strategies).toContain("parked");
  expect(strategies).toContain("abandoned");
  // The key is the coordinator's own: in nothing that it wrote down.
  expect(lines.some((line) => line.includes(CANARY))).toBe(false);
  // Few turns at the most went another way than recorded.
  expect(server.missing.length).toBeLessThan(10);
});
