import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { stringify } from "yaml";
import type { Job, Lease } from "@vibeserve/shared";
import type { Turn } from "../../coordinator/src/campaign/turns.ts";
import { CATALOG } from "../../coordinator/src/observe/catalog.ts";
import { Counted } from "../../coordinator/src/observe/counted.ts";
import { Metrics } from "../../coordinator/src/observe/metrics.ts";
import { Money } from "../../coordinator/src/observe/money.ts";
import { Observer } from "../../coordinator/src/observe/observer.ts";
import { startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";
import { replaceTables } from "./doc-tables.ts";
import { promtool, promtoolTest } from "./promtool.ts";

vi.setConfig({ testTimeout: 60_000 });

const FILES = join(import.meta.dirname, "../../deploy/helm/vibeserve/files");
const DOC = join(import.meta.dirname, "../../docs/observability.md");
const options = { baselines: [], repeat: null };

async function observed(dir: string): Promise<{ real: RealCoordinator; scrape: () => Promise<string> } & AsyncDisposable> {
  const observer = await Observer.open({ listen: { host: "127.0.0.1", port: 0 }, lockFile: join(dir, "up.lock") });
  const real = await startCoordinator(dir, { observer, usd: 50 });
  const scrape = async () => {
    const response = await fetch(`http://127.0.0.1:${observer.port}/metrics`);
    expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
    return response.text();
  };
  const end = async () => {
    await real[Symbol.asyncDispose]();
    await observer[Symbol.asyncDispose]();
  };
  return { real, scrape, [Symbol.asyncDispose]: end };
}

/** What a scrape says once a whole campaign has run. */
async function afterCampaign(): Promise<string> {
  using dir = tempDir("metrics-whole");
  await using it = await observed(dir.path);
  await using _ = await it.real.agent("a1");
  const actor = await it.real.coordinator.submit(tinyTarget, options);
  await actor.ended;
  return await it.scrape();
}

/** Samples whose line begins like this, summed. */
const sum = (text: string, start: string): number | null => {
  const lines = text.split("\n").filter((line) => line.startsWith(start));
  return lines.length === 0 ? null : lines.reduce((n, line) => n + Number(line.split(" ").at(-1)), 0);
};

test("a scrape says what is there: agents, devices, queue, leases, phases, results that were refused, and no id of any of them", async () => {
  using dir = tempDir("metrics");
  await using it = await observed(dir.path);
  const { real, scrape } = it;
  const got = Promise.withResolvers<{ job: Job; lease: Lease }>();
  let work = false;
  await using agent = await real.agent("a1", {
    work: async (job, lease) => {
      got.resolve({ job, lease });
      return work ? agent.outcome(job, lease) : "silent";
    },
  });
  await real.enroll("a2");
  const actor = await real.coordinator.submit(tinyTarget, options);
  const { job, lease } = await got.promise;
  const good = agent.signed(job, lease, await agent.outcome(job, lease));
  const recorded = async (event: string, result: typeof good) => {
    const next = real.reported(event);
    await agent.publish(result);
    await next;
  };
  await recorded("result.refused", { ...good, endedAt: good.endedAt + 1 });
  await recorded("result.recorded", agent.signed(job, { ...lease, token: lease.token + 1 }, await agent.outcome(job, lease)));

  const held = await scrape();
  const device = 'pool="local",slot="device",simulated="true"';
  for (const [start, value] of [
    ['vibeserve_agents{pool="local",state="ready"}', 1],
    ['vibeserve_agents{pool="local",state="away"}', 1],
    ['vibeserve_devices{pool="local",state="ready",health="good",simulated="true"}', 1],
    [`vibeserve_slots{${device}}`, 1],
    [`vibeserve_queue_jobs{${device}}`, 0],
    ['vibeserve_leases{pool="local"}', 1],
    ['vibeserve_results_refused_total{reason="signature"}', 1],
    ['vibeserve_results_refused_total{reason="stale"}', 1],
    ["vibeserve_jobs_settled_total", null],
    ['vibeserve_campaigns{phase="searching"}', 1],
    ["vibeserve_models_budget_dollars", 50],
    ["vibeserve_broker_connected", 1],
  ] as const)
    expect(sum(held, start), start).toBe(value);
  expect(sum(held, "vibeserve_event_log_write_seconds_count")).toBe(actor.events.length);
  expect(sum(held, "vibeserve_store_bytes")).toBeGreaterThan(0);

  work = true;
  await agent.publish(good);
  await actor.ended;
  const done = await scrape();
  const settled = actor.events.filter(({ event: { fact } }) => fact.type === "job.settled" && fact.accepted).length;
  expect(sum(done, "vibeserve_jobs_settled_total")).toBe(settled);
  expect(sum(done, 'vibeserve_job_duration_seconds_count{pool="local"')).toBe(settled);
  expect(sum(done, 'vibeserve_campaigns{phase="proven"}')).toBe(1);
  expect(sum(done, "vibeserve_leases")).toBeNull();
  for (const id of [actor.id, job.id, "a1", agent.device.id]) expect(done).not.toContain(`"${id}`);

  // A broker that hangs holds up no scrape.
  const pid = real.coordinator.broker.pid ?? 0;
  process.kill(pid, "SIGSTOP");
  try {
    // It may answer once more before the signal has reached all its threads.
    const without = await vi.waitFor(async () => {
      const text = await scrape();
      expect(sum(text, "vibeserve_broker_rtt_seconds")).toBeNull();
      return text;
    });
    expect(sum(without, "vibeserve_store_bytes")).toBeNull();
    expect(sum(without, "vibeserve_campaigns")).toBe(1);
  } finally {
    process.kill(pid, "SIGCONT");
  }
});

test("what a device reports that can't be, a build from the cache and an attempt that expired are counted as what they are", async () => {
  const metrics = new Metrics();
  const counted = new Counted(metrics);
  const campaign = { ledger: { j: { spec: { kind: "build" } } }, agent: { pools: ["p"] }, device: { simulated: false } } as never;
  const result = { jobId: "j", startedAt: 1_000, endedAt: 3_000, outcome: { status: "built", cached: true } };
  const fact = { type: "job.settled", accepted: true, why: "", result };
  counted.recorded(fact as never, campaign);
  const verdict = { attribution: "device", code: "impossible-numbers", secondDevice: false, why: "" };
  counted.recorded({ ...fact, result: { ...result, outcome: { status: "measured" } }, verdict } as never, campaign);
  counted.recorded({ type: "job.expired", jobId: "j", attempt: 1, why: "", attribution: "network" }, campaign);
  counted.logged("broker.replaced", {});
  const text = await metrics.text();
  for (const line of [
    'vibeserve_builds_total{cached="true"} 1',
    'vibeserve_results_refused_total{reason="impossible"} 1',
    'vibeserve_jobs_settled_total{kind="build",outcome="measured",attribution="device",simulated="false"} 1',
    'vibeserve_jobs_settled_total{kind="build",outcome="expired",attribution="network",simulated="false"} 1',
    'vibeserve_job_duration_seconds_sum{pool="p",kind="build",simulated="false"} 4',
    'vibeserve_orphaned_processes_total{fate="replaced"} 1',
  ])
    expect(text).toContain(`${line}\n`);
});

test("money is added up by role, over all campaigns, and what is promised counts as committed only", () => {
  const turn = (role: Turn["role"], usd: number, outcome: unknown): Turn =>
    ({ id: "t", role, provider: "p", model: "m", of: null, reservedUsd: 1, reservedTokens: 9, outcome, usd }) as Turn;
  const usage = { input: 10, output: 2, cacheRead: 30, cacheWrite: 4 };
  const first = [turn("planner", 0.5, { status: "answered", usage }), turn("judge", 0, null)];
  const second = [turn("planner", 0.25, { status: "failed", code: "lost", usage: null })];
  const money = new Money();
  expect(money.of(first)).toBe(money.of(first));
  const spent = money.sum([first, second, []]);
  expect(spent.committedUsd).toBe(1.75);
  expect(spent.usd).toEqual([[{ role: "planner" }, 0.75]]);
  expect(spent.turns).toEqual([
    [{ role: "planner", status: "answered" }, 1],
    [{ role: "planner", status: "lost" }, 1],
  ]);
  expect(spent.tokens).toContainEqual([{ role: "planner", direction: "cache-read" }, 30]);
});

interface Panel {
  id: number;
  title: string;
  datasource: { uid: string };
  gridPos: { x: number; y: number; w: number; h: number };
  targets: { expr: string; datasource: { uid: string } }[];
}
const dashboard = JSON.parse(readFileSync(join(FILES, "dashboard.json"), "utf8")) as {
  panels: Panel[];
  templating: { list: { name: string; type: string }[] };
};

test("every metric that an alert or a panel names is one that a running coordinator exports", async () => {
  const text = await afterCampaign();
  const exported = new Set<string>();
  for (const [, name = "", type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm))
    for (const suffix of type === "histogram" ? ["_bucket", "_sum", "_count"] : [""]) exported.add(name + suffix);
  for (const name of Object.keys(CATALOG)) expect(text).toContain(`# HELP ${name} `);
  const used = ["rules.yaml", "dashboard.json"].flatMap((file) => {
    const names = [...readFileSync(join(FILES, file), "utf8").matchAll(/\b(?:vibeserve|nodejs|process)_[a-z0-9_]+/g)].map(([name]) => name);
    expect(names.length, file).toBeGreaterThan(12);
    return names;
  });
  expect(used.filter((name) => !exported.has(name))).toEqual([]);
});

test("the dashboard has 16 panels at most, none over another, all from the data source that is chosen at import", () => {
  const { panels, templating } = dashboard;
  expect(panels.length).toBeGreaterThan(0);
  expect(panels.length).toBeLessThanOrEqual(16);
  expect(new Set(panels.map((p) => p.id)).size).toBe(panels.length);
  expect(templating.list).toContainEqual(expect.objectContaining({ name: "datasource", type: "datasource" }));
  for (const { title, datasource, targets } of panels)
    for (const { uid } of [datasource, ...targets.map((t) => t.datasource)]) expect(uid, title).toBe("${datasource}");
  const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_, i) => `${x + (i % w)},${y + Math.floor(i / w)}`),
  );
  expect(new Set(cells).size).toBe(cells.length);
  expect(Math.max(...panels.map(({ gridPos: { x, w } }) => x + w))).toBeLessThanOrEqual(24);
});

promtoolTest("Prometheus' own linter finds nothing to say about the metrics, and parses every panel's expression", async () => {
  promtool(["check", "metrics"], await afterCampaign());
  const exprs = dashboard.panels.flatMap((panel) =>
    panel.targets.map((t) => t.expr.replaceAll("$__rate_interval", "5m").replaceAll("$pool", ".*")),
  );
  using dir = tempDir("metrics-lint");
  const file = join(dir.path, "panels.yaml");
  writeFileSync(file, stringify({ groups: [{ name: "panels", rules: exprs.map((expr, i) => ({ record: `panel:expr:${i}`, expr })) }] }));
  promtool(["check", "rules", file]);
});

test("docs/observability.md lists these metrics and these alerts; UPDATE_DOCS=1 writes them", () => {
  const text = readFileSync(DOC, "utf8");
  const made = replaceTables(text, join(FILES, "rules.yaml"));
  if (process.env["UPDATE_DOCS"] === "1") writeFileSync(DOC, made);
  else expect(text).toBe(made);
});
