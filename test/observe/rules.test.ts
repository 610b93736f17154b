import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { tempDir } from "../kit/temp-dir.ts";
import { promtool, promtoolTest } from "./promtool.ts";

const ROOT = join(import.meta.dirname, "../..");
const RULES = join(ROOT, "deploy/helm/vibeserve/files/rules.yaml");

interface Rule {
  alert: string;
  expr: string;
  labels: { severity: string };
  annotations: { summary: string; description: string; runbook_url: string };
}
const { groups } = parse(readFileSync(RULES, "utf8")) as { groups: { rules: Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);

/** A sample a minute, in promtool's notation: 1x9 is ten times 1, 0+2x9 rises by 2. */
type Series = [name: string, labels: string, values: string];
const on = (name: string, labels = "", value = 1): Series => [name, labels, `${value}x400`];
const POOL = 'pool="a",simulated="false"';
const waiting = (jobs: string, slot = "device"): Series => ["vibeserve_queue_jobs", `${POOL},slot="${slot}"`, jobs];
const ready = on("vibeserve_devices", `${POOL},state="ready",health="good"`);
const settled = (labels: string): Series => ["vibeserve_jobs_settled_total", labels, "0+1x400"];
const refused = (reason: string, values: string): Series => ["vibeserve_results_refused_total", `reason="${reason}"`, values];
const logged = (event: string, values: string): Series => ["vibeserve_log_events_total", `event="${event}"`, values];
const written = (le: string): Series => ["vibeserve_event_log_write_seconds_bucket", `le="${le}"`, "0+60x400"];
const build = on("vibeserve_build_info", 'version="1"');

/** For each alert, after so many minutes: what fires it and nothing else, and what comes near and fires none. */
const CASES: Record<string, { minutes: number; fires: Series[]; quiet: Series[] }> = {
  VibeServeCoordinatorDown: { minutes: 6, fires: [], quiet: [build] },
  VibeServeCoordinatorRestarts: {
    minutes: 45,
    fires: [["process_start_time_seconds", "", "100x9 200x9 300x9 400x400"]],
    quiet: [["process_start_time_seconds", "", "100x9 200x9 300x400"]],
  },
  VibeServeEventLoopLag: {
    minutes: 15,
    fires: [on("nodejs_eventloop_lag_p99_seconds", "", 0.8)],
    quiet: [on("nodejs_eventloop_lag_p99_seconds", "", 0.1)],
  },
  VibeServeCampaignUnreadable: {
    minutes: 1,
    fires: [on("vibeserve_campaigns", 'phase="unreadable"')],
    quiet: [on("vibeserve_campaigns", 'phase="unreadable"', 0), on("vibeserve_campaigns", 'phase="unread"', 5)],
  },
  VibeServeBrokerDown: {
    minutes: 4,
    fires: [on("vibeserve_broker_connected", "", 0)],
    quiet: [["vibeserve_broker_connected", "", "1 0 1 0 1x400"]],
  },
  VibeServeBrokerSlow: { minutes: 25, fires: ["1", "+Inf"].map(written), quiet: ["0.01", "0.5", "1", "+Inf"].map(written) },
  VibeServeBrokerRestarts: {
    minutes: 10,
    fires: [logged("broker.died", "0 1 2 3 4x400")],
    quiet: [logged("broker.died", "0 1x400"), logged("job.settled", "0+9x400")],
  },
  VibeServeStoreStalled: {
    minutes: 5,
    fires: [["vibeserve_store_stalled_seconds", "", "0 30+60x400"]],
    // A leader that is chosen anew takes seconds.
    quiet: [["vibeserve_store_stalled_seconds", "", "0 20 0 0 45 0x400"]],
  },
  VibeServeStoreNearlyFull: {
    minutes: 20,
    fires: [on("vibeserve_store_bytes", "", 90), on("vibeserve_store_limit_bytes", "", 100)],
    // Where there is no limit there is no share of it.
    quiet: [on("vibeserve_store_bytes", "", 1e12)],
  },
  VibeServeDiskNearlyFull: {
    minutes: 20,
    fires: [on("vibeserve_data_free_bytes", "", 5), on("vibeserve_data_size_bytes", "", 100)],
    quiet: [on("vibeserve_data_free_bytes", "", 20), on("vibeserve_data_size_bytes", "", 100)],
  },
  VibeServeResultsRefused: {
    minutes: 10,
    fires: [refused("signature", "0x4 1x400")],
    quiet: [refused("stale", "0x4 1x400"), refused("signature", "7x400")],
  },
  VibeServeStaleResults: {
    minutes: 30,
    fires: [refused("stale", "0+1x400")],
    quiet: [refused("stale", "0 1 2 3x400")],
  },
  VibeServeNoReadyDevice: {
    minutes: 15,
    fires: [waiting("3x400"), on("vibeserve_devices", 'pool="a",simulated="true",state="ready",health="good"')],
    quiet: [waiting("3x400"), waiting("3x400", "builder"), ready],
  },
  VibeServeQueueGrowing: {
    minutes: 100,
    fires: [waiting("0+1x400"), ready, on("vibeserve_queue_oldest_wait_seconds", `${POOL},slot="device"`, 7200)],
    quiet: [waiting("400-1x399"), ready, on("vibeserve_queue_oldest_wait_seconds", `${POOL},slot="device"`, 7200)],
  },
  VibeServeJobsWaitBesideFreeDevices: {
    minutes: 35,
    fires: [waiting("1x400"), ready, on("vibeserve_slots_free", `${POOL},slot="device"`)],
    quiet: [
      waiting("1x400"),
      ready,
      on("vibeserve_slots_free", `${POOL},slot="device"`, 0),
      on("vibeserve_slots_free", `${POOL},slot="builder"`),
    ],
  },
  VibeServeDeviceQuarantined: {
    minutes: 10,
    fires: [on("vibeserve_devices", `${POOL},state="ready",health="quarantined"`)],
    quiet: [on("vibeserve_devices", `${POOL},state="ready",health="suspect"`)],
  },
  VibeServeCanaryOverdue: {
    minutes: 35,
    fires: [on("vibeserve_canary_age_seconds", 'pool="a"', 50_000)],
    quiet: [on("vibeserve_canary_age_seconds", 'pool="a"', 40_000)],
  },
  VibeServeAgentsAway: {
    minutes: 20,
    fires: [on("vibeserve_agents", 'pool="a",state="away"')],
    quiet: [on("vibeserve_agents", 'pool="a",state="ready"', 3), ["vibeserve_agents", 'pool="a",state="away"', "1x9 0x400"]],
  },
  VibeServeAgentsIncompatible: {
    minutes: 20,
    fires: [on("vibeserve_agents", 'pool="a",state="incompatible"')],
    quiet: [on("vibeserve_agents", 'pool="a",state="draining"')],
  },
  VibeServeAgentsWait: { minutes: 65, fires: [on("vibeserve_agents_waiting")], quiet: [on("vibeserve_agents_waiting", "", 0)] },
  VibeServeJobsFail: {
    minutes: 60,
    fires: [settled('outcome="failed",attribution="device"'), settled('outcome="measured",attribution="none"')],
    quiet: [settled('outcome="failed",attribution="candidate"'), settled('outcome="measured",attribution="none"')],
  },
  VibeServeBudgetNearlyUsed: {
    minutes: 1,
    fires: [on("vibeserve_models_committed_dollars", "", 95), on("vibeserve_models_budget_dollars", "", 100)],
    quiet: [on("vibeserve_models_committed_dollars", "", 95), on("vibeserve_models_budget_dollars", "", 200)],
  },
  VibeServeCampaignStalled: {
    minutes: 15,
    fires: [on("vibeserve_campaign_silence_seconds", "", 8000)],
    quiet: [on("vibeserve_campaign_silence_seconds", "", 3000)],
  },
  VibeServeCampaignPaused: {
    minutes: 70,
    fires: [on("vibeserve_campaigns", 'phase="paused"')],
    quiet: [on("vibeserve_campaigns", 'phase="paused"', 0), on("vibeserve_campaigns", 'phase="waiting"')],
  },
};

test("every alert says how bad it is, what it means, and where a person reads what to do; and has a case here", () => {
  expect(rules.length).toBeGreaterThanOrEqual(12);
  expect(rules.map((r) => r.alert)).toEqual([...new Set(rules.map((r) => r.alert))]);
  expect(Object.keys(CASES).sort()).toEqual(rules.map((r) => r.alert).sort());
  for (const { alert, labels, annotations } of rules) {
    expect(["critical", "warning", "info"], alert).toContain(labels.severity);
    expect(annotations.summary.length, alert).toBeGreaterThan(10);
    expect(annotations.description.length, alert).toBeGreaterThan(30);
    // That the place is there is held by test/operate/runbooks.test.ts, as of every other that leads to that page.
    expect(annotations.runbook_url, alert).toMatch(/^docs\/operations\.md#[a-z-]+$/);
  }
});

promtoolTest("each alert fires, alone, on what it is for, and stays quiet on what comes near", () => {
  using dir = tempDir("rules");
  const tests = Object.entries(CASES).flatMap(([alertname, { minutes, fires, quiet }]) => [
    at(minutes, alertname === "VibeServeCoordinatorDown" ? fires : [build, ...fires], [alertname]),
    at(minutes, [build, ...quiet], []),
  ]);
  const { annotations, labels } = rules.find((r) => r.alert === "VibeServeNoReadyDevice") as Rule;
  // One with its words: what its templates become.
  const worded = at(15, [build, ...(CASES["VibeServeNoReadyDevice"]?.fires ?? [])], ["VibeServeNoReadyDevice"]);
  const words = (text: string) => text.replaceAll("{{ $labels.pool }}", "a").replaceAll("{{ $value }}", "3");
  const exp_alerts = [
    {
      exp_labels: { ...labels, pool: "a", simulated: "false", job: "c", instance: "i" },
      exp_annotations: { ...annotations, summary: words(annotations.summary), description: words(annotations.description) },
    },
  ];
  tests.push({
    ...worded,
    promql_expr_test: [],
    alert_rule_test: [{ eval_time: "15m", alertname: "VibeServeNoReadyDevice", exp_alerts }],
  } as never);
  const file = join(dir.path, "rules.test.yaml");
  writeFileSync(file, stringify({ rule_files: [RULES], evaluation_interval: "1m", tests }));
  promtool(["check", "rules", RULES]);
  promtool(["test", "rules", file]);
});

function at(minutes: number, series: Series[], firing: string[]) {
  return {
    interval: "1m",
    input_series: series.map(([name, labels, values]) => ({
      series: `${name}{job="c",instance="i"${labels === "" ? "" : `,${labels}`}}`,
      values,
    })),
    promql_expr_test: [
      {
        expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
        eval_time: `${minutes}m`,
        exp_samples: firing.map((alertname) => ({ labels: `{alertname="${alertname}"}`, value: 1 })),
      },
    ],
  };
}
