import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { CampaignEvent, CampaignList, CampaignSummary } from "@vibeserve/shared";
import { agentArgs } from "../../coordinator/src/cli/agent-process.ts";
import { ConfigError, loadSettings } from "../../coordinator/src/config.ts";
import { readSetupConfig } from "../../coordinator/src/setup/index.ts";
import { parseDuration } from "../../coordinator/src/cli/duration.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site, type Command } from "../kit/vibeserve-process.ts";

// Each test starts many processes; on a machine that is busy with other suites that takes several times as long as alone.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const dir = tempDir("verbs");
const site = new Site(dir.path, { XDG_CONFIG_HOME: join(dir.path, "config") });
let up: Command;
let agent: Command | null = null;

beforeAll(async () => {
  up = site.run("up");
  await up.printed(/coordinator ready/);
});

afterAll(async () => {
  agent?.child.kill("SIGTERM");
  await agent?.ended;
  up.child.kill("SIGTERM");
  await up.ended;
  site.cleanUp();
  dir[Symbol.dispose]();
});

/** Runs a verb to its end. */
async function verb(...args: string[]): Promise<{ code: number; out: string; err: string; json: () => unknown }> {
  const command = site.run(...args);
  const code = await command.ended;
  return { code, out: command.out(), err: command.err(), json: () => JSON.parse(command.out()) as unknown };
}

test("pruning artifacts says what it did, and refuses what it does not understand", async () => {
  expect((await verb("artifacts", "prune", "--dry-run", "--json")).json()).toMatchObject({
    kind: "pruned",
    dryRun: true,
    removed: 0,
    more: false,
  });
  expect(await verb("artifacts", "prune", "--older-than", "30 days")).toMatchObject({
    code: 2,
    err: expect.stringContaining("30d") as string,
  });
  expect(await verb("artifacts", "burn")).toMatchObject({ code: 2 });
  expect(parseDuration("30d")).toBe(30 * 86_400);
});

test("a target is submitted, paused, resumed and cancelled from other processes", async () => {
  expect(await verb("campaigns")).toMatchObject({ code: 0, out: "no campaigns\n" });
  expect(await verb("pause")).toMatchObject({ code: 2, err: "vibeserve: there is no campaign yet\n" });
  const submitted = await verb("submit", site.target, "--budget", "5m", "--json");
  expect(submitted.code).toBe(0);
  const { campaign } = CampaignSummary.parse(submitted.json());
  expect(submitted.json()).toMatchObject({ v: 1, kind: "campaign", target: "tiny", state: "waiting", budgetS: 300 });
  expect((await verb("pause", "--json")).json()).toMatchObject({ campaign, state: "paused" });
  expect(await verb("pause")).toMatchObject({ code: 1, err: `vibeserve: campaign ${campaign} can't be paused: it is paused\n` });
  expect((await verb("resume", campaign, "--json")).json()).toMatchObject({
    campaign,
    state: "waiting",
    reason: expect.stringMatching(/waits for a ready agent/) as string,
  });
  expect((await verb("cancel", campaign, "--json")).json()).toMatchObject({ campaign, state: "ended", outcome: "cancelled" });
  const watched = await verb("watch", campaign, "--json");
  expect(watched.json()).toMatchObject({ v: 1, kind: "watched", campaign, outcome: "cancelled" });
  expect(watched).toMatchObject({ code: 1, err: expect.stringMatching(/campaign ended: cancelled/) as string });
  expect(await verb("cancel", "nobody")).toMatchObject({ code: 2, err: "vibeserve: no campaign nobody\n" });
});

test("an agent enrols itself, a campaign is watched to its end, and exported", async () => {
  agent = site.run("agent", "--no-setup");
  await agent.printed(/agent local enrolled/);
  const submitted = CampaignSummary.parse((await verb("submit", site.target, "--baseline", "none", "--json")).json());
  const watched = await verb("watch", submitted.campaign, "--json");
  expect(watched.code).toBe(0);
  const { outcome, events } = watched.json() as { outcome: string; events: unknown[] };
  expect(outcome).toBe("proven");
  expect(events.map((e) => CampaignEvent.parse(e).seq)).toEqual(events.map((_, i) => i + 1));
  const exported = await verb("export", "--out", join(dir.path, "out"), "--json");
  expect(exported.json()).toMatchObject({
    kind: "export",
    campaign: submitted.campaign,
    files: ["events.jsonl", "report.json", "campaign.bundle"],
  });
  expect(readFileSync(join(dir.path, "out/events.jsonl"), "utf8").trim().split("\n")).toHaveLength(events.length);
  const repeat = `npx vibeserve submit ${site.target} --baseline none`;
  expect(JSON.parse(readFileSync(join(dir.path, "out/report.json"), "utf8"))).toMatchObject({
    campaigns: [{ id: submitted.campaign, outcome: "proven", repeat }],
  });
  execFileSync("git", ["clone", "--quiet", join(dir.path, "out/campaign.bundle"), join(dir.path, "clone")]);
  expect(existsSync(join(dir.path, "clone/stack.json"))).toBe(true);
  const status = (await verb("status", "--json")).json();
  expect(status).toMatchObject({ kind: "status", broker: { syncAlways: true }, agents: [{ agentId: "local", state: "ready" }] });
});

test("yield and drain say what they hold, and refuse a name that nobody has, unless it is still to come", async () => {
  const refused = await verb("drain", "locl");
  expect(refused).toMatchObject({ code: 2, err: expect.stringContaining("there is no agent locl; there are: local; --ahead") as string });
  expect(await verb("yield", "--pool", "nope")).toMatchObject({ code: 2, err: expect.stringContaining("there are: fake") as string });
  expect(await verb("yield", "--device", "nope")).toMatchObject({ code: 2, err: expect.stringContaining("local-builder") as string });
  expect(await verb("yield")).toMatchObject({ code: 0, out: "nothing is held\n" });
  expect((await verb("drain", "next-week", "--ahead")).out).toMatch(/next-week +drain +now[^]*held now, 0: nothing that is there/);
  expect((await verb("yield", "--for", "2h")).out).toMatch(/everything +yield +now[^]*held now, 2: local-builder, local-/);
  expect((await verb("drain", "next-week", "--end")).code).toBe(0);
  expect((await verb("yield", "--end")).out).toBe("nothing is held\n");
});

test("explain tells a job that has ended from one that nobody ever asked for", async () => {
  const { campaigns } = CampaignList.parse((await verb("campaigns", "--json")).json());
  const { campaign = "" } = campaigns.find((c) => c.outcome === "proven") ?? {};
  expect(await verb("explain", `${campaign}_seed_check`)).toMatchObject({
    code: 0,
    out: expect.stringMatching(/_seed_check ended at 20\d\d-\d\d-\d\d \d\d:\d\d: checked, on local-/) as string,
  });
  const misspelt = await verb("explain", `${campaign}_seed_chek`);
  expect(misspelt).toMatchObject({ code: 2, err: expect.stringMatching(/no such job: .*_seed_chek neither waits nor runs/) as string });
});

test("a campaign is exported with its own report, however old it is and whether it has ended or not", async () => {
  const reported = async (id: string): Promise<unknown> => {
    expect((await verb("export", id, "--out", join(dir.path, id))).code).toBe(0);
    return JSON.parse(readFileSync(join(dir.path, id, "report.json"), "utf8")) as unknown;
  };
  // Held, so that it has not ended before it is paused.
  expect((await verb("yield", "--for", "10m")).code).toBe(0);
  const begun = CampaignSummary.parse((await verb("submit", site.target, "--json")).json()).campaign;
  expect((await verb("pause", begun)).code).toBe(0);
  expect((await verb("yield", "--end")).code).toBe(0);
  expect(await reported(begun)).toMatchObject({ v: 1, kind: "report", campaigns: [{ id: begun, state: "running", outcome: null }] });
  const { campaigns } = CampaignList.parse((await verb("campaigns", "--json")).json());
  const cancelled = campaigns.find((c) => c.outcome === "cancelled")?.campaign ?? "";
  expect(await reported(cancelled)).toMatchObject({ campaigns: [{ id: cancelled, outcome: "cancelled", reason: "asked for" }] });
});

test("a coordinator elsewhere is found by the name of its context", async () => {
  mkdirSync(join(dir.path, "config/vibeserve/contexts"), { recursive: true });
  writeFileSync(join(dir.path, "config/vibeserve/contexts/there.json"), readFileSync(join(site.data, "client.json")));
  expect(await verb("campaigns", "--context", "there")).toMatchObject({ code: 0 });
  expect(await verb("campaigns", "--context", "nowhere")).toMatchObject({
    code: 2,
    err: expect.stringMatching(/no context "nowhere"/) as string,
  });
});

test("where no coordinator answers a verb ends with 3 and says how to start one", async () => {
  const lonely = new Site(join(dir.path, "lonely"));
  const command = lonely.run("campaigns", "--json");
  expect(await command.ended).toBe(3);
  expect(JSON.parse(command.out())).toMatchObject({
    v: 1,
    kind: "error",
    code: "unreachable",
    message: expect.stringMatching(/start one with "npx vibeserve up"/) as string,
  });
  mkdirSync(lonely.data, { recursive: true });
  const dead = {
    v: 1,
    kind: "client",
    servers: ["nats://127.0.0.1:1"],
    seed: (JSON.parse(readFileSync(join(site.data, "client.json"), "utf8")) as { seed: string }).seed,
    pid: 1,
    startedAt: 1,
  };
  writeFileSync(join(lonely.data, "client.json"), JSON.stringify(dead));
  const refused = lonely.run("status");
  expect(await refused.ended).toBe(3);
  expect(refused.err()).toMatch(/no coordinator at nats:\/\/127.0.0.1:1/);
});

const BAD: [string[], RegExp][] = [
  [["submit", "nowhere.yaml"], /nowhere.yaml: there is no such file; one that ships is .*targets\/cpu\/chat.yaml/],
  [["submit", "."], /\.: it is a folder, not a file; one that ships is/],
  [["simulate", "nowhere.yaml"], /nowhere.yaml: there is no such file; one that ships is .*targets\/fleets\/mixed.yaml/],
  [["skills", "--for", "nowhere.yaml"], /nowhere.yaml: there is no such file/],
  [["agent", "--no-setup", "--join-file", "nowhere"], /nowhere: there is no such file/],
  [["restore", "nowhere.tar"], /there is no file nowhere.tar/],
  [["restore", "."], /there is no file \./],
  [["keys", "--out", "target.yaml"], /ENOTDIR: not a directory, .*target.yaml/],
  [["submit", "target.yaml", "--budget", "soon"], /--budget soon: not a duration; allowed: such as 90s, 5m, 1h30m/],
  [
    ["submit", "target.yaml", "--baseline", "tgi"],
    /--baseline tgi: there is no such baseline; allowed: openvino-genai, llama.cpp, .*vllm, .*none/,
  ],
  [["submit", "target.yaml", "--baseline", "none", "--baseline", "llama.cpp"], /none can't be combined with llama.cpp/],
  [["submit", "target.yaml", "--unsafe-no-sandbox"], /unknown option '--unsafe-no-sandbox'/],
  [["campaigns", "--frob"], /unknown option '--frob'/],
  [["frobnicate"], /unknown command 'frobnicate'/],
  [["submit"], /missing required argument 'target'/],
  [["watch", "--context", "../x"], /not a name/],
  [["serve", "--port", "70000"], /--port 70000: not a port/],
];

test("bad input ends with 2 and a message that names it", async () => {
  const answers = await Promise.all(BAD.map(async ([args, message]) => ({ args, message, ...(await verb(...args, "--json")) })));
  for (const { args, message, code, err, json } of answers) {
    expect(err, args.join(" ")).toMatch(message);
    expect(code, args.join(" ")).toBe(2);
    // One object: a second one would not parse.
    expect(json()).toMatchObject({ v: 1, kind: "error", code: "bad-input", message: expect.stringMatching(message) as string });
  }
});

test("the client's context is readable by its owner only, and is gone when the coordinator is", () => {
  expect(statSync(join(site.data, "client.json")).mode & 0o777).toBe(0o600);
});

test("no seed is in a log", () => {
  const seeds = ["system", "coordinator", "client"].map((role) => readFileSync(join(site.data, "nats/keys", `${role}.nk`), "utf8").trim());
  const logs = readFileSync(join(site.data, "logs/coordinator.log"), "utf8");
  for (const seed of seeds) expect(logs.includes(seed)).toBe(false);
});

test("durations and settings are read strictly", () => {
  expect(["300", "90s", "5m", "1h30m", "0", "", "5 m", "-5m", "1.5"].map(parseDuration)).toEqual([
    300,
    90,
    300,
    5400,
    null,
    null,
    null,
    null,
    1.5,
  ]);
  expect(loadSettings({ data: "/d" }, { VIBESERVE_PORT: "4222", HOME: "/h" })).toMatchObject({ port: 4222, cache: "/h/.cache/vibeserve" });
  expect(() => loadSettings({}, { VIBESERVE_PORT: "many" })).toThrow(ConfigError);
  expect(() => loadSettings({}, { VIBESERVE_LOG_LEVEL: "loud" })).toThrow(/environment: VIBESERVE_LOG_LEVEL/);
});

test("an XDG folder that is empty or relative counts as unset, for the verbs as for the set-up", () => {
  for (const unset of ["", "relative", "./cache"]) {
    const env = { HOME: "/h", XDG_CACHE_HOME: unset, XDG_CONFIG_HOME: unset };
    expect(loadSettings({}, env)).toMatchObject({ cache: "/h/.cache/vibeserve", contexts: "/h/.config/vibeserve/contexts" });
    expect(readSetupConfig(env).cacheDir).toBe("/h/.cache/vibeserve");
  }
  const env = { HOME: "/h", XDG_CACHE_HOME: "/c", XDG_CONFIG_HOME: "/f" };
  expect(loadSettings({}, env)).toMatchObject({ cache: "/c/vibeserve", contexts: "/f/vibeserve/contexts" });
  expect(readSetupConfig(env).cacheDir).toBe("/c/vibeserve");
});

test("the Python that is named goes to this machine's agent for stacks; what set-up found is for baselines alone", () => {
  const assets = { bwrap: null, cxx: ["c++"], python: "/home/ann/.pyenv/bin/python3" };
  const words = (env: NodeJS.ProcessEnv): string =>
    agentArgs(loadSettings({ data: "/d" }, { HOME: "/h", ...env }), { assets, unsafeNoSandbox: false }, []).join(" ");
  expect(words({})).toMatch(/ --baseline-python \/home\/ann\/.pyenv\/bin\/python3$/);
  expect(words({})).not.toContain("--python");
  expect(words({ VIBESERVE_PYTHON: "/opt/torch/bin/python3", VIBESERVE_AGENT_PYTHON: "/opt/other/bin/python3" })).toMatch(
    / --python \/opt\/torch\/bin\/python3$/,
  );
  expect(words({ VIBESERVE_AGENT_PYTHON: "/opt/other/bin/python3" })).toMatch(/ --python \/opt\/other\/bin\/python3$/);
});

test("a flag wins over the environment, the environment over the file, the file over the default", () => {
  using folder = tempDir("config");
  writeFileSync(join(folder.path, "config.yaml"), "pool: from-file\nlogLevel: debug\n");
  const env = { HOME: "/h", VIBESERVE_POOL: "from-env" };
  expect(loadSettings({ data: folder.path, pool: "from-flag" }, env)).toMatchObject({
    pool: "from-flag",
    logLevel: "debug",
    agentId: "local",
  });
  expect(loadSettings({ data: folder.path }, env).pool).toBe("from-env");
  expect(loadSettings({ data: folder.path }, { HOME: "/h" }).pool).toBe("from-file");
  writeFileSync(join(folder.path, "config.yaml"), "pol: typo\n");
  expect(() => loadSettings({ data: folder.path }, env)).toThrow(
    /config.yaml: pol: .*; allowed: cache, natsServer, host, port, .*pool, agentId, logLevel/,
  );
});
