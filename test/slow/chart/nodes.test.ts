import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CHART, runHelm, type Ended } from "../../kit/chart.ts";
import type { RealNodes } from "../../kit/real-nodes.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { clusterProblem, startNodes } from "./cluster.ts";

if (clusterProblem !== null) process.stderr.write(`skipped, the chart on real nodes: ${clusterProblem}\n`);

const NAME = "vs-vibeserve";
/** A machine of two processors holds all three nodes, each of which says that it has both. */
const ROOM = [
  "coordinator.resources.requests.cpu=200m",
  "nats.resources.requests.cpu=100m",
  "agents.resources.requests.cpu=500m",
  "agents.resources.requests.memory=1Gi",
];

describe.skipIf(clusterProblem !== null)(
  "the chart on real nodes: kubelet, containerd, network policies (skipped where they can't be had)",
  () => {
    let dir!: ReturnType<typeof tempDir>;
    let cluster!: RealNodes;

    beforeAll(async () => {
      dir = tempDir("nodes");
      cluster = await startNodes(dir.path);
    }, 600_000);
    afterAll(async () => {
      await cluster[Symbol.asyncDispose]();
      dir[Symbol.dispose]();
    });

    const run = (...args: string[]): Ended => {
      const home = join(dir.path, "helm");
      mkdirSync(home, { recursive: true });
      const env = { ...process.env, HOME: home, KUBECONFIG: cluster.plane.kubeconfig };
      return runHelm([...args, "--namespace", "vibe"], env);
    };
    const done = ({ code, out, err }: Ended): string => {
      if (code !== 0)
        writeFileSync(
          "/tmp/nodes-fail.txt",
          cluster.kubectl("get", "pods", "-A", "-o", "wide").out + cluster.kubectl("get", "events", "-n", "vibe").out,
        );
      expect(code, out + err).toBe(0);
      return out;
    };
    const sets = (...more: string[]): string[] => [...ROOM, ...more].flatMap((value) => ["--set", value]);
    const vibeserve = (...args: string[]): string =>
      done(
        cluster.kubectl(
          "exec",
          "-n",
          "vibe",
          `deploy/${NAME}-coordinator`,
          "--",
          "/opt/vibeserve/bin/vibeserve",
          ...args,
          "--data",
          "/var/lib/vibeserve",
        ),
      );

    it("installs with --wait into a namespace that enforces `restricted`; the smoke campaign passes", async () => {
      const enforce = { "pod-security.kubernetes.io/enforce": "restricted" };
      await cluster.plane.create({ apiVersion: "v1", kind: "Namespace", metadata: { name: "vibe", labels: enforce } });
      done(run("install", "vs", CHART, ...sets(), "--wait", "--timeout", "5m"));
      expect(vibeserve("agents")).toMatch(/vs-vibeserve-cpu-\S+ +ready .*no sandbox/);
      expect(done(run("test", "vs", "--logs"))).toContain("smoke: ok");
    }, 600_000);
  },
);
