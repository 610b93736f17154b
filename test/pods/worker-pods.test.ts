import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { readPodClasses } from "../../coordinator/src/pods/pod-class.ts";
import { factOf, POOL, startCoordinator, type RealCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";
import { runPodAgent } from "./pod-agent.ts";
import { podServer, type StoredPod } from "./pod-server.ts";

const classes = (max: number, more = {}) => ({
  owner: "vs",
  namespace: "fleet",
  classes: [
    {
      name: "sim",
      pool: POOL,
      labels: { "vibeserve.dev/device.kind": "cpu" },
      max,
      template: {
        metadata: { labels: { team: "a" } },
        spec: { containers: [{ name: "agent", image: "agent:1", env: [{ name: "A", value: "b" }] }] },
      },
      ...more,
    },
  ],
});

test("a campaign for which no device is there gets pods, holds no more than its class may, and leaves none behind", async () => {
  using dir = tempDir("worker-pods");
  const file = join(dir.path, "pods.yaml");
  writeFileSync(file, JSON.stringify(classes(2)));
  const failures: unknown[] = [];
  const started: RealCoordinator[] = [];
  const run = async (pod: StoredPod): Promise<void> => {
    const [real] = started;
    if (!real) throw new Error("no coordinator");
    await runPodAgent(real, pod.metadata.name, () => (pod.status.phase = "Running"));
    pod.status.phase = "Succeeded";
  };
  let most = 0;
  await using server = await podServer({
    created: (pod) => {
      most = Math.max(most, [...server.pods.values()].filter((p) => p.status.phase !== "Succeeded").length);
      void run(pod).catch((error: unknown) => failures.push(error));
    },
  });
  await using real = await startCoordinator(dir.path, {
    settings: { workerPods: { file, api: server.url, caFile: null, tokenFile: null } },
  });
  started.push(real);
  const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
  expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
  await vi.waitUntil(() => server.pods.size === 0 && real.coordinator.broker.agents.length === 0, { timeout: 20_000, interval: 100 });
  expect(failures).toEqual([]);
  expect(most).toBeGreaterThanOrEqual(1);
  expect(most).toBeLessThanOrEqual(2);
  const [first] = server.state.created;
  const registered = real.reports.filter((r) => r.event === "worker-pod.registered");
  expect(registered.map((r) => r.facts["pod"])).toContain(first);
  for (const { facts } of registered) expect(facts["startMs"]).toBeGreaterThanOrEqual(0);
  // Nothing was left to anyone else: each pod's agent bears its name, and all that was made is told.
  expect(server.state.created.every((name) => /^vs-sim-[a-z0-9]{5}$/.test(name))).toBe(true);
  expect(real.reports.filter((r) => r.event === "worker-pod.created")).toHaveLength(server.state.created.length);
}, 90_000);

test("a pod says who it is, where it belongs and when it ends, and keeps what its template says", async () => {
  using dir = tempDir("worker-pods");
  const file = join(dir.path, "pods.yaml");
  writeFileSync(file, JSON.stringify(classes(1, { lingerSeconds: 7 })));
  await using server = await podServer();
  await using real = await startCoordinator(dir.path, {
    settings: { workerPods: { file, api: server.url, caFile: null, tokenFile: null } },
  });
  const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
  await real.reported("worker-pod.created");
  const [pod] = server.pods.values();
  const name = pod?.metadata.name;
  expect(pod).toMatchObject({
    metadata: { labels: { team: "a", "vibeserve.dev/worker-class": "sim", "vibeserve.dev/worker-owner": "vs" } },
    spec: { restartPolicy: "Never", containers: [{ image: "agent:1" }] },
  });
  expect(pod?.spec.containers[0]?.env).toEqual([
    { name: "A", value: "b" },
    { name: "VIBESERVE_AGENT_AGENT_ID", value: name },
    { name: "VIBESERVE_AGENT_POOL", value: POOL },
    { name: "VIBESERVE_AGENT_EXIT_WHEN_IDLE", value: "7" },
  ]);
  // It is not admitted yet, and its campaign is cancelled: nobody needs it any more.
  if (pod) pod.spec.schedulingGates = [{ name: "kueue.x-k8s.io/admission" }];
  const deleted = real.reported("worker-pod.deleted");
  await actor.cancel("changed my mind");
  expect(await deleted).toMatchObject({ pod: name, why: "nothing waits for it any more" });
  expect(server.pods.size).toBe(0);
}, 60_000);

test("what the API server refuses is told in its own words, and not tried again at once", async () => {
  using dir = tempDir("worker-pods");
  const file = join(dir.path, "pods.yaml");
  writeFileSync(file, JSON.stringify(classes(1)));
  await using server = await podServer();
  server.state.refuse = 'pods "vs-sim-x" is forbidden: exceeded quota: gpus, requested: nvidia.com/gpu=1, used: 8, limited: 8';
  await using real = await startCoordinator(dir.path, {
    settings: { workerPods: { file, api: server.url, caFile: null, tokenFile: null } },
  });
  await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
  expect(await real.reported("worker-pod.refused")).toMatchObject({ why: expect.stringMatching(/403: .*exceeded quota: gpus/) as string });
  const { lists } = server.state;
  await vi.waitUntil(() => server.state.lists > lists + 1, { timeout: 20_000, interval: 100 });
  expect(real.reports.filter((r) => r.event === "worker-pod.refused")).toHaveLength(1);
}, 60_000);

test.each([
  [
    "a template without the agent",
    { template: { spec: { containers: [{ name: "main" }] } } },
    /class sim: template has no container "agent"/,
  ],
  ["a name that no pod can have", { name: "Sim" }, /classes\.0\.name: must be 1 to 22 of a-z/],
  ["a key that is none", { maximum: 3 }, /classes\.0: Unrecognized key: "maximum"/],
])("a file of classes with %s is refused by name", (_what, change, message) => {
  using dir = tempDir("worker-pods");
  const file = join(dir.path, "pods.yaml");
  writeFileSync(file, JSON.stringify(classes(1, change)));
  expect(() => readPodClasses(file)).toThrow(message);
});
