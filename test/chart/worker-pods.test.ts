import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { podOf, readPodClasses, type PodClasses } from "../../coordinator/src/pods/pod-class.ts";
import { containersOf, helm, idOf, render, workloadsOf } from "../kit/chart.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { FORBIDDEN } from "../slow/chart/forbidden-pods.ts";

const LEASE = [
  "agents.classes.nvidia.gpu.mode=lease-pod",
  "agents.classes.nvidia.pool=h100",
  "agents.classes.nvidia.gpu.count=1",
  "agents.classes.nvidia.gpu.max=4",
  "kueue.queueName=research",
];

const Policy = z.looseObject({
  spec: z.looseObject({ validations: z.array(z.object({ message: z.string(), reason: z.string(), expression: z.string() })) }),
});

/** What the coordinator reads in its pod. */
function classesOf(text: string): PodClasses {
  using dir = tempDir("worker-pods");
  const file = join(dir.path, "pods.yaml");
  writeFileSync(file, text);
  return readPodClasses(file);
}

describe.skipIf(helm === null)("gpu.mode lease-pod (skipped without helm)", () => {
  const objects = helm === null ? [] : render({ set: LEASE });
  const named = (id: string) => objects.find((object) => idOf(object) === id);
  const file = (): string => (named("ConfigMap/vs-vibeserve-worker-pods")?.["data"] as Record<string, string>)["pods.yaml"] ?? "";

  it("has no DaemonSet for the class, and leaves the other classes theirs", () => {
    const sets = objects.filter(({ kind }) => kind === "DaemonSet").map((object) => object.metadata.name);
    expect(sets).toEqual(expect.arrayContaining(["vs-vibeserve-amd", "vs-vibeserve-cpu"]));
    expect(sets).not.toContain("vs-vibeserve-nvidia");
  });

  it("asks the API server by the one name that every one's certificate has, whatever the cluster's domain is", () => {
    const containers = workloadsOf(render({ set: [...LEASE, "clusterDomain=corp.example"] })).flatMap(containersOf);
    const said = containers.flatMap(({ env }) => env.filter(({ name }) => name === "VIBESERVE_KUBERNETES_API").map(({ value }) => value));
    expect(said).toEqual(["https://kubernetes.default.svc"]);
  });

  it("hands the coordinator a class that it can read, whose pod is the DaemonSet's but for its devices, its pool and its end", () => {
    const classes = classesOf(file());
    const [podClass] = classes.classes;
    if (!podClass) return expect.fail("no class");
    expect(classes).toMatchObject({
      owner: "vs-vibeserve",
      classes: [{ name: "nvidia", pool: "h100", max: 4, lingerSeconds: 20, startSeconds: 900 }],
    });
    const pod = podOf(classes, podClass, "vs-vibeserve-nvidia-bcdfg") as {
      metadata: { labels: Record<string, string> };
      spec: Record<string, unknown> & { containers: { args: string[]; env: { name: string; value?: string }[]; resources: unknown }[] };
    };
    expect(pod.metadata.labels).toMatchObject({ "kueue.x-k8s.io/queue-name": "research", "app.kubernetes.io/component": "agent" });
    const [container] = pod.spec.containers;
    expect(container?.resources).toMatchObject({ limits: { "nvidia.com/gpu": "1" } });
    expect(container?.args).not.toContain("--pool");
    const names = container?.env.map(({ name }) => name) ?? [];
    expect(new Set(names).size).toBe(names.length);
    expect(container?.env).toEqual(expect.arrayContaining([{ name: "VIBESERVE_AGENT_AGENT_ID", value: "vs-vibeserve-nvidia-bcdfg" }]));
    const whole = workloadsOf(render({ set: ["agents.classes.nvidia.pool=h100"] })).find(
      ({ object }) => idOf(object) === "DaemonSet/vs-vibeserve-nvidia",
    );
    const { containers: _own, restartPolicy, nodeSelector, ...rest } = pod.spec;
    expect(restartPolicy).toBe("Never");
    // A pod that takes one of eight devices fits nodes of any number of them.
    expect(nodeSelector).toEqual({ "nvidia.com/gpu.present": "true" });
    for (const key of [
      "securityContext",
      "volumes",
      "serviceAccountName",
      "automountServiceAccountToken",
      "hostUsers",
      "runtimeClassName",
      "tolerations",
    ])
      expect(rest[key], key).toEqual((whole?.object["spec"] as { template: { spec: Record<string, unknown> } }).template.spec[key]);
  });

  it("lets the coordinator create, delete and list pods of its namespace, and nobody anything else", () => {
    expect(named("Role/vs-vibeserve-worker-pods")?.["rules"]).toEqual([
      { apiGroups: [""], resources: ["pods"], verbs: ["create", "delete", "list"] },
    ]);
    expect(named("RoleBinding/vs-vibeserve-worker-pods")?.["subjects"]).toEqual([
      { kind: "ServiceAccount", name: "vs-vibeserve-coordinator", namespace: expect.any(String) as string },
    ]);
  });

  it("has the API server let nobody else make worker pods, and the coordinator nothing else, each by a rule with a name", () => {
    const id = "vs-vibeserve-worker-pods.vibe";
    const policy = Policy.parse(named(`ValidatingAdmissionPolicy/${id}`)).spec;
    expect(named(`ValidatingAdmissionPolicyBinding/${id}`)?.["spec"]).toEqual({ policyName: id, validationActions: ["Deny"] });
    expect(policy).toMatchObject({
      failurePolicy: "Fail",
      matchConstraints: { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "vibe" } } },
    });
    const rules = policy.validations.map(({ message }) => /^rule ([a-z]+): ./.exec(message)?.[1]);
    expect(new Set(rules).size, "each its own").toBe(rules.length);
    // Those that hold all that the coordinator makes are each broken at an API server.
    expect(rules.filter((rule) => rule !== "creator" && rule !== "labels").sort()).toEqual(
      [...new Set(FORBIDDEN.map(({ rule }) => rule))].sort(),
    );
    for (const { reason, expression } of policy.validations) {
      expect(reason).toBe("Forbidden");
      expect(expression).toMatch(/^(!variables\.made \|\| |request\.operation == )/);
    }
    const only = policy.validations.find(({ message }) => message.startsWith("rule creator:"))?.expression;
    expect(only).toContain('request.userInfo.username == "system:serviceaccount:vibe:vs-vibeserve-coordinator"');
  });

  it("holds pods to what its own are, whatever the sandbox and the classes", () => {
    const expressions = (set: string[]): string =>
      JSON.stringify(render({ set: [...LEASE, ...set] }).filter(({ kind }) => kind === "ValidatingAdmissionPolicy"));
    const usual = expressions([]);
    expect(usual).toContain("vibeserve/agent-cuda:0.1.0");
    expect(usual).not.toContain("vibeserve/agent-cpu");
    for (const [set, more] of [
      [["agents.sandbox.mode=userNamespaces"], 'localhostProfile.orValue(\\"vibeserve/sandbox.json\\")'],
      [["agents.sandbox.mode=privileged"], "privileged.orValue(false) == true"],
      [
        ["images.registry=mirror.example", `images.agentCuda.digest=sha256:${"a".repeat(64)}`],
        `mirror.example/vibeserve/agent-cuda@sha256:${"a".repeat(64)}`,
      ],
      [["weights.existingClaim=w", "weights.subPath=a"], String.raw`{\"nvidia\":[\"w\",\"\",\"\"]}`],
      [["agents.classes.nvidia.weights.hostPath=/mnt/w"], String.raw`{\"nvidia\":[\"\",\"/mnt/w\",\"Directory\"]}`],
      [["agents.admissionPolicy.tokenAudiences={sts.amazonaws.com}"], '[\\"vibeserve\\",\\"sts.amazonaws.com\\"]'],
    ] as const) {
      expect(expressions([...set]), more).toContain(more);
      expect(usual, more).not.toContain(more);
    }
  });

  it("has no such policy where it is switched off, or where no class is so", () => {
    const policies = (set: string[]) => render({ set }).filter(({ kind }) => kind.startsWith("ValidatingAdmission"));
    expect(policies([...LEASE, "agents.admissionPolicy.enabled=false"])).toEqual([]);
    expect(policies([])).toEqual([]);
  });

  it("takes a class of one's own that says only what it must", () => {
    const own =
      'agents.classes.b200={"enabled":true,"family":"cuda","pool":"b200","gpu":{"mode":"lease-pod","allocation":"dra","deviceClass":"gpu.nvidia.com"}}';
    const found = render({ json: [own] });
    const text = found.find((object) => idOf(object) === "ConfigMap/vs-vibeserve-worker-pods")?.["data"] as Record<string, string>;
    expect(classesOf(text["pods.yaml"] ?? "").classes).toMatchObject([{ name: "b200", max: 8, lingerSeconds: 20, startSeconds: 900 }]);
    expect(JSON.stringify(found.find((object) => idOf(object) === "ResourceClaimTemplate/vs-vibeserve-b200"))).toContain('"count":1');
  });

  it("asks for a pool, since jobs wait there before a device was ever seen", () => {
    expect(() => render({ set: LEASE.filter((value) => !value.includes(".pool=")) })).toThrow(/lease-pod needs agents.classes.nvidia.pool/);
  });
});
