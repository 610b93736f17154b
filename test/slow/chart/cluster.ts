import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { helm, kubeTools } from "../../kit/chart.ts";
import { Images, imagesProblem } from "../../kit/images.ts";
import { natsServer } from "../../kit/real-broker.ts";
import { nodesProblem, PAUSE, RealNodes } from "../../kit/real-nodes.ts";

/** Why the chart can't be tried on real nodes here; null: it can. */
export const clusterProblem = helm === null ? "there is no helm; test/slow/chart/kube-tools.sh makes it" : (nodesProblem ?? imagesProblem);

/** The last one measures. */
export const NODES = [{ name: "node-a" }, { name: "node-b" }, { name: "node-c", labels: { "vibeserve.dev/agent": "cpu" } }] as const;
/** A folder that every node has, as of a shared file system. */
export const SHARED = "shared";

/** Three nodes with the product's images and names of Services (CoreDNS), two local disks each, and a claimable folder that all share. */
export async function startNodes(dir: string): Promise<RealNodes> {
  const archives = makeArchives(dir);
  const cluster = await RealNodes.start(dir, NODES);
  try {
    for (const { name } of NODES) await cluster.load(name, archives);
    await cluster.ready();
    for (const document of parseAllDocuments(readFileSync(join(import.meta.dirname, "cluster-dns.yaml"), "utf8")))
      await cluster.plane.create(document.toJS(), "kube-system");
    await makeVolumes(cluster, dir);
    return cluster;
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}

/** All images that a pod here may have. NATS's is its server alone. */
function makeArchives(dir: string): string[] {
  const images = new Images(dir);
  const archives: string[] = [];
  const archive = (image: string, as: string): void => {
    const file = join(dir, `${archives.length}.tar`);
    images.archive(image, as, file);
    archives.push(file);
  };
  const pause = join(dir, "pause");
  writeFileSync(`${pause}.c`, "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n");
  execFileSync("cc", ["-static", "-o", pause, `${pause}.c`]);
  archive(images.single("pause", pause, "/pause"), PAUSE);
  archive(images.single("coredns", join(kubeTools, "coredns"), "/coredns"), "docker.io/coredns/coredns:test");
  archive(images.single("nats", natsServer, "/usr/local/bin/nats-server"), "docker.io/library/nats:2.15.1-alpine");
  for (const stage of ["coordinator", "agent-cpu"]) archive(images.build(stage), `docker.io/vibeserve/${stage}:0.1.0`);
  return archives;
}

async function makeVolumes({ plane }: RealNodes, dir: string): Promise<void> {
  const volume = (name: string, mode: string, spec: object): Promise<unknown> =>
    plane.create({
      ...{ apiVersion: "v1", kind: "PersistentVolume", metadata: { name } },
      spec: { capacity: { storage: "100Gi" }, accessModes: [mode], ...spec },
    });
  await plane.create({
    ...{ apiVersion: "storage.k8s.io/v1", kind: "StorageClass", provisioner: "kubernetes.io/no-provisioner" },
    volumeBindingMode: "WaitForFirstConsumer",
    metadata: { name: "local", annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
  });
  for (const { name } of NODES)
    for (const disk of ["1", "2"]) {
      const path = join(dir, name, `disk-${disk}`);
      mkdirSync(path);
      const here = { key: "kubernetes.io/hostname", operator: "In", values: [name] };
      const nodeAffinity = { required: { nodeSelectorTerms: [{ matchExpressions: [here] }] } };
      await volume(`${name}-${disk}`, "ReadWriteOnce", { storageClassName: "local", local: { path }, nodeAffinity });
    }
  const path = join(dir, SHARED);
  mkdirSync(path);
  // fsGroup is not applied to a folder of the node's.
  chownSync(path, 0, 10001);
  chmodSync(path, 0o2775);
  await volume(SHARED, "ReadWriteMany", { storageClassName: "shared", hostPath: { path } });
}
