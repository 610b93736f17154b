import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { z } from "zod";
import { CHART, helm, runHelm, type Ended } from "../../kit/chart.ts";
import { until } from "../../kit/control-plane.ts";
import { Images, imagesProblem } from "../../kit/images.ts";
import { natsServer } from "../../kit/real-broker.ts";
import { nodesProblem, PAUSE, RealNodes } from "../../kit/real-nodes.ts";
import { kubeTools } from "../../kit/chart.ts";
import { tempDir } from "../../kit/temp-dir.ts";

const why = helm === null ? "there is no helm; test/slow/chart/kube-tools.sh makes it" : (nodesProblem ?? imagesProblem);
if (why !== null) process.stderr.write(`skipped, the chart on real nodes: ${why}\n`);

const NODES = [{ name: "node-a" }, { name: "node-b" }, { name: "node-c", labels: { "vibeserve.dev/agent": "cpu" } }];
const NAME = "vs-vibeserve";
/** A machine of two processors holds all three nodes, each of which says that it has both. */
const ROOM = [
  "coordinator.resources.requests.cpu=200m",
  "nats.resources.requests.cpu=100m",
  "agents.resources.requests.cpu=500m",
  "agents.resources.requests.memory=1Gi",
];

describe.skipIf(why !== null)("the chart on real nodes: kubelet, containerd, network policies (skipped where they can't be had)", () => {
  let dir!: ReturnType<typeof tempDir>;
  let cluster!: RealNodes;

  beforeAll(async () => {
    dir = tempDir("nodes");
    const images = new Images(dir.path);
    const archives: string[] = [];
    const archive = (image: string, as: string): void => {
      const file = join(dir.path, `${archives.length}.tar`);
      images.archive(image, as, file);
      archives.push(file);
    };
    const pause = join(dir.path, "pause");
    writeFileSync(`${pause}.c`, "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n");
    execFileSync("cc", ["-static", "-o", pause, `${pause}.c`]);
    archive(images.single("pause", pause, "/pause"), PAUSE);
    archive(images.single("coredns", join(kubeTools, "coredns"), "/coredns"), "docker.io/coredns/coredns:test");
    archive(images.single("nats", natsServer, "/usr/local/bin/nats-server"), "docker.io/library/nats:2.15.1-alpine");
    for (const stage of ["coordinator", "agent-cpu"]) archive(images.build(stage), `docker.io/vibeserve/${stage}:0.1.0`);
    cluster = await RealNodes.start(dir.path, NODES);
    for (const { name } of NODES) await cluster.load(name, archives);
    await cluster.ready();
    for (const document of parseAllDocuments(readFileSync(join(import.meta.dirname, "cluster-dns.yaml"), "utf8")))
      await cluster.plane.create(document.toJS(), "kube-system");
    await makeVolumes();
  }, 600_000);
  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });

  /** Two local disks a node. */
  async function makeVolumes(): Promise<void> {
    await cluster.plane.create({
      ...{
        apiVersion: "storage.k8s.io/v1",
        kind: "StorageClass",
        provisioner: "kubernetes.io/no-provisioner",
        volumeBindingMode: "WaitForFirstConsumer",
      },
      metadata: { name: "local", annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
    });
    for (const { name } of NODES)
      for (const disk of ["1", "2"]) {
        const path = join(dir.path, name, `disk-${disk}`);
        mkdirSync(path);
        const here = { key: "kubernetes.io/hostname", operator: "In", values: [name] };
        await cluster.plane.create({
          ...{ apiVersion: "v1", kind: "PersistentVolume", metadata: { name: `${name}-${disk}` } },
          spec: {
            ...{ capacity: { storage: "100Gi" }, accessModes: ["ReadWriteOnce"], storageClassName: "local", local: { path } },
            nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [here] }] } },
          },
        });
      }
  }

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
});
void [z, until];
