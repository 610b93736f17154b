import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { z } from "zod";
import { podApi } from "../../../coordinator/src/pods/pod-api.ts";
import { podOf, readPodClasses, type PodClasses } from "../../../coordinator/src/pods/pod-class.ts";
import { helm, idOf, render, type KubeObject, type RenderOptions } from "../../kit/chart.ts";
import { ControlPlane, messageOf, missingPrograms, until, type Answer } from "../../kit/control-plane.ts";
import { factOf, POOL, startCoordinator } from "../../kit/real-coordinator.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { tinyTarget } from "../../kit/tiny-stack.ts";
import { runPodAgent } from "../../pods/pod-agent.ts";
import { makeNodes, makeVolumes, NODES } from "./fake-nodes.ts";
import { FORBIDDEN, type Made } from "./forbidden-pods.ts";

const NAMESPACE = "vibe";
const PODS = `/api/v1/namespaces/${NAMESPACE}/pods`;
/** nvidia fits some nodes, amd none, and has what only pods without a user namespace of their own may have. */
const LEASE = [
  ...["mode=lease-pod", "count=1", "max=2", "labels.vibeserve\\.dev/device\\.kind=cpu"].map((set) => `agents.classes.nvidia.gpu.${set}`),
  ...["mode=lease-pod", "count=16", "startSeconds=10", "labels.vibeserve\\.dev/device\\.kind=rocm"].map(
    (set) => `agents.classes.amd.gpu.${set}`,
  ),
  ...[`agents.classes.nvidia.pool=${POOL}`, "agents.classes.amd.pool=amd"],
  ...["weights.existingClaim=weights", "weights.subPath=models", "agents.classes.amd.weights.hostPath=/mnt/weights"],
  ...["agents.classes.amd.hostUsers=true", "agents.classes.amd.supplementalGroups={44,109}"],
];
/** What else the chart can make of a worker pod. */
const VARIANTS: Record<string, RenderOptions> = {
  fleet: { preset: "gpu-fleet", set: ["agents.classes.b200.gpu.mode=lease-pod", "agents.classes.b200.pool=b200"] },
  open: { preset: "openshift", set: ["agents.hostUsers=true"] },
  deep: { set: ["agents.sandbox.mode=runtimeClass", "agents.sandbox.runtimeClassName=gvisor", "agents.priorityClassName=mine"] },
  trust: { set: ["agents.sandbox.mode=privileged", "agents.data.storageClass=local", "weights.hostPath=/mnt/weights"] },
};
const KINDS = ["ServiceAccount", "Role", "RoleBinding", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
const Token = z.looseObject({ status: z.looseObject({ token: z.string() }) });
const Pods = z.looseObject({ data: z.looseObject({ "pods.yaml": z.string() }) });
const Checked = z.looseObject({
  status: z.looseObject({ observedGeneration: z.number(), typeChecking: z.looseObject({ expressionWarnings: z.unknown().optional() }) }),
});
const PodSeen = z.looseObject({ spec: z.looseObject({ nodeName: z.string().optional() }), status: z.looseObject({ phase: z.string() }) });

const absent = [...(helm === null ? ["helm"] : []), ...missingPrograms];

describe.skipIf(absent.length > 0)("worker pods on a real control plane (skipped where one can't be had)", () => {
  const dir = tempDir("worker-pods-plane");
  let plane!: ControlPlane;
  /** Who may make any pod of the namespace. */
  let other = "";

  beforeAll(async () => {
    plane = await ControlPlane.start(dir.path);
    await makeNodes(plane);
    // It enforces nothing, so that what is refused is refused by the chart's policy.
    const labels = { "pod-security.kubernetes.io/enforce": "privileged" };
    await plane.create({ apiVersion: "v1", kind: "Namespace", metadata: { name: NAMESPACE, labels } });
    await makeVolumes(plane, 1);
    const weights = { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } };
    await plane.create({ apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: { name: "weights" }, spec: weights }, NAMESPACE);
    for (const name of ["nvidia", "gvisor"])
      await plane.create({ apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name }, handler: name });
    await plane.create({ apiVersion: "scheduling.k8s.io/v1", kind: "PriorityClass", metadata: { name: "mine" }, value: 10 });
    await plane.create({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "other" } }, NAMESPACE);
    const rbac = "rbac.authorization.k8s.io";
    const rules = [{ apiGroups: [""], resources: ["pods"], verbs: ["create", "patch"] }];
    await plane.create({ apiVersion: `${rbac}/v1`, kind: "Role", metadata: { name: "other" }, rules }, NAMESPACE);
    await plane.create(
      {
        ...{ apiVersion: `${rbac}/v1`, kind: "RoleBinding", metadata: { name: "other" } },
        roleRef: { apiGroup: rbac, kind: "Role", name: "other" },
        subjects: [{ kind: "ServiceAccount", name: "other", namespace: NAMESPACE }],
      },
      NAMESPACE,
    );
    other = await tokenOf("other");
  }, 180_000);
  afterAll(async () => {
    await plane[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });

  const tokenOf = async (account: string): Promise<string> => {
    const request = { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: {} };
    const { body } = await plane.ask("POST", `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${account}/token`, request);
    return Token.parse(body).status.token;
  };
  const said = (answer: Answer): string => `${answer.status} ${messageOf(answer)}`;
  const workers = async (): Promise<KubeObject[]> =>
    (await plane.list("v1", "Pod", NAMESPACE)).filter(({ metadata }) => metadata.labels["vibeserve.dev/worker-owner"] === "vs-vibeserve");

  /** Makes what a release has of accounts, rights and policies, waits until those hold, and gives what its coordinator has in its pod. */
  async function installed(release: string, options: RenderOptions) {
    const objects = render({ release, ...options });
    for (const object of objects.filter(({ kind }) => KINDS.includes(kind)))
      // A policy names its namespace in its name.
      await plane.create(object, NAMESPACE);
    const found = objects.find((object) => idOf(object) === `ConfigMap/${release}-vibeserve-worker-pods`);
    const file = join(dir.path, `${release}.yaml`);
    writeFileSync(file, Pods.parse(found).data["pods.yaml"]);
    const classes = readPodClasses(file);
    const token = await tokenOf(`${classes.owner}-coordinator`);
    const tokenFile = join(dir.path, `${release}.token`);
    writeFileSync(tokenFile, token);
    const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "x" }, spec: { containers: [{ name: "x", image: "x" }] } };
    await until("the policy holds", async () => /rule worker/.test(said(await plane.ask("POST", `${PODS}?dryRun=All`, pod, { token }))));
    const api = podApi(plane.url, { caFile: plane.caFile, tokenFile }, classes);
    return { classes, token, tokenFile, file, api };
  }
  const madeOf = (classes: PodClasses, name: string, podClass: string): Made => {
    const found = classes.classes.find((one) => one.name === podClass) ?? expect.fail(`no class ${podClass}`);
    return structuredClone(podOf(classes, found, name)) as Made;
  };

  let main!: Awaited<ReturnType<typeof installed>>;
  it("the policy compiles, and its types are those of pods", async () => {
    main = await installed("vs", { set: LEASE });
    const path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/vs-vibeserve-worker-pods.vibe";
    await until("types are checked", async () => Checked.safeParse((await plane.ask("GET", path)).body).success);
    expect(Checked.parse((await plane.ask("GET", path)).body).status.typeChecking.expressionWarnings).toBeUndefined();
  });

  it("the coordinator makes the worker pods that the chart hands it, sees them, and removes them", async () => {
    for (const podClass of ["nvidia", "amd"]) {
      const name = `vs-vibeserve-${podClass}-bcdfg`;
      await main.api.create(madeOf(main.classes, name, podClass));
      expect(await main.api.list()).toMatchObject([{ name, podClass }]);
      await main.api.remove(name);
      await until("it is gone", async () => (await main.api.list()).length === 0);
    }
    await main.api.remove("vs-vibeserve-nvidia-never");
  });

  it.each(Object.entries(VARIANTS))("so does one of another set-up: %s", async (release, options) => {
    const own = options.preset === "gpu-fleet" ? [] : LEASE.filter((value) => value.startsWith("agents.classes.nvidia"));
    const { classes, api } = await installed(release, { ...options, set: [...own, ...(options.set ?? [])] });
    for (const { name } of classes.classes) await api.create(madeOf(classes, `${classes.owner}-${name}-bcdfg`, name));
    expect(await api.list()).toHaveLength(classes.classes.length);
    for (const pod of await api.list()) await api.remove(pod.name);
  });

  it.each(FORBIDDEN)(
    "the coordinator's account may not make one that breaks rule $rule: $what",
    async ({ rule, podClass = "nvidia", change }) => {
      const pod = madeOf(main.classes, `vs-vibeserve-${podClass}-broken`, podClass);
      change(pod);
      expect(said(await plane.ask("POST", PODS, pod, { token: main.token }))).toMatch(new RegExp(`^403 .*denied request: rule ${rule}:`));
    },
  );

  it("another account that may make pods makes no worker pod, and makes none of its own into one", async () => {
    const worker = madeOf(main.classes, "vs-vibeserve-nvidia-fghjk", "nvidia");
    expect(said(await plane.ask("POST", PODS, worker, { token: other }))).toMatch(/^403 .*rule creator: only .*vs-vibeserve-coordinator /);
    const label = { "vibeserve.dev/worker-owner": "vs-vibeserve" };
    const plain = { apiVersion: "v1", kind: "Pod", metadata: { name: "plain" }, spec: { containers: [{ name: "x", image: "x" }] } };
    expect((await plane.ask("POST", PODS, plain, { token: other })).status).toBe(201);
    const patch = async (name: string, metadata: object): Promise<string> =>
      said(await plane.ask("PATCH", `${PODS}/${name}`, { metadata }, { token: other, type: "application/merge-patch+json" }));
    expect(await patch("plain", { labels: label })).toMatch(/^403 .*rule labels:/);
    await main.api.create(worker);
    expect(await patch(worker.metadata.name, { labels: { "vibeserve.dev/worker-owner": null } })).toMatch(/^403 .*rule labels:/);
    expect(await patch(worker.metadata.name, { labels: { "vibeserve.dev/worker-class": "amd" } })).toMatch(/^403 .*rule labels:/);
    // As Kueue does that admits it.
    expect(await patch(worker.metadata.name, { annotations: { admitted: "yes" } })).toMatch(/^200 /);
    await main.api.remove(worker.metadata.name);
    await plane.ask("DELETE", `${PODS}/plain`);
    await until("both are gone", async () => (await plane.list("v1", "Pod", NAMESPACE)).length === 0);
  });

  it("a lease pod's whole life: made for a campaign, placed on a node that has its device, ended with its work, removed", async () => {
    const failures: unknown[] = [];
    const known = new Map<string, string>();
    await using real = await startCoordinator(join(dir.path, "life"), {
      settings: { workerPods: { file: main.file, api: plane.url, caFile: plane.caFile, tokenFile: main.tokenFile } },
    });
    // kwok calls a placed pod running; what its container would do is done here, and told as a kubelet tells it.
    const run = async (name: string): Promise<void> => {
      await runPodAgent(real, name);
      const status = { status: { phase: "Succeeded" } };
      await plane.ask("PATCH", `${PODS}/${name}/status`, status, { type: "application/merge-patch+json" });
    };
    const looking = setInterval(() => {
      void workers()
        .then((pods) => {
          for (const pod of pods) {
            const { spec, status } = PodSeen.parse(pod);
            if (known.has(pod.metadata.name) || status.phase !== "Running") continue;
            known.set(pod.metadata.name, spec.nodeName ?? "");
            run(pod.metadata.name).catch((error: unknown) => failures.push(error));
          }
        })
        .catch((error: unknown) => failures.push(error));
    }, 300);
    try {
      const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
      expect(await factOf(real, actor, "campaign.ended")).toMatchObject({ outcome: "proven" });
      const nothingLeft = (): Promise<boolean> =>
        vi.waitUntil(async () => (await workers()).length === 0 && real.coordinator.broker.agents.length === 0, {
          ...{ timeout: 60_000, interval: 300 },
        });
      await nothingLeft();
      expect(known.size).toBeGreaterThan(0);
      for (const node of known.values()) expect(NODES[node]?.devices).toHaveProperty(["nvidia.com/gpu"]);
      expect(real.reports.filter(({ event }) => event === "worker-pod.registered").map(({ facts }) => facts["pod"])).toEqual(
        expect.arrayContaining([...known.keys()]),
      );

      // No node has sixteen of its devices: the scheduler's own words reach the log, and nothing stays.
      const late = await real.coordinator.submit(
        { ...tinyTarget, name: "late", device: { "vibeserve.dev/device.kind": "rocm" } },
        { baselines: [], repeat: null },
      );
      expect(await real.reported("worker-pod.failed")).toMatchObject({
        podClass: "amd",
        why: expect.stringMatching(
          /no agent of it is registered 10 s after its start: Unschedulable: 0\/\d+ nodes are available/,
        ) as string,
      });
      await late.cancel("no such node");
      await nothingLeft();
      expect(failures).toEqual([]);
    } finally {
      clearInterval(looking);
    }
  }, 180_000);
});
