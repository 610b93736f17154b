import { describe, expect, it } from "vitest";
import { z } from "zod";
import {
  containersOf,
  helm,
  idOf,
  PRESETS,
  render,
  workloadsOf,
  type KubeObject,
  type RenderOptions,
  type Workload,
} from "../kit/chart.ts";

const FETCH = ["repository=tiny/llama", `revision=${"a".repeat(40)}`, "name=tiny"].map((set) => `weights.fetch.models[0].${set}`);
/** Every preset, and what presets don't switch on. */
const VARIANTS: Record<string, RenderOptions> = {
  ...Object.fromEntries(PRESETS.map((preset) => [preset === "" ? "default" : preset, { preset }])),
  "existing secrets": {
    set: [
      ...["llm.existingSecret=llm-key", "llm.keys.openai=OPENAI_API_KEY", "registry.existingSecret=pull"],
      ...["nats.existingSecret=broker", "externalAccess.enabled=true", "coordinator.persistence.existingClaim=mine"],
      ...["builders.enabled=true", "builders.autoscaling.hpa.enabled=true"],
    ],
  },
  "nats of one's own": { set: ["nats.enabled=false", "nats.url=tls://nats.example:4222", "nats.existingSecret=broker"] },
  weights: {
    set: ["weights.existingClaim=weights", "weights.coordinator=true", "huggingFace.existingSecret=hf", ...FETCH],
  },
  gvisor: { set: ["agents.sandbox.mode=runtimeClass", "agents.sandbox.runtimeClassName=gvisor"] },
  privileged: { set: ["agents.sandbox.mode=privileged", "builders.enabled=true"] },
};
const EXISTING = new Set([
  ...["Secret/llm-key", "Secret/hf", "Secret/pull", "Secret/mirror-pull", "PersistentVolumeClaim/mine", "PersistentVolumeClaim/weights"],
  // Made in every namespace by the controller manager.
  "ConfigMap/kube-root-ca.crt",
  ...["server", "coordinator", "join", "client"].flatMap((part) => [`Secret/vs-vibeserve-${part}`, `Secret/broker-${part}`]),
]);

const isInstaller = ({ labels }: Workload): boolean => labels["app.kubernetes.io/component"] === "seccomp";
const isAgent = ({ labels }: Workload): boolean => /^(agent|builder)$/.test(labels["app.kubernetes.io/component"] ?? "");
const covers = (selector: Record<string, string>, labels: Record<string, string>): boolean =>
  Object.entries(selector).every(([name, value]) => labels[name] === value);

const Requirement = z.object({ key: z.string(), operator: z.enum(["In", "NotIn"]), values: z.array(z.string()) });
const Policy = z.looseObject({
  spec: z.looseObject({
    podSelector: z.object({
      matchLabels: z.record(z.string(), z.string()).default({}),
      matchExpressions: z.array(Requirement).default([]),
    }),
    policyTypes: z.array(z.string()),
    ingress: z.array(z.looseObject({ ports: z.array(z.looseObject({ port: z.union([z.string(), z.number()]) })).default([]) })).default([]),
  }),
});
const MatchLabels = z.looseObject({ spec: z.looseObject({ selector: z.looseObject({ matchLabels: z.record(z.string(), z.string()) }) }) });
const Service = z.looseObject({
  spec: z.looseObject({
    selector: z.record(z.string(), z.string()),
    ports: z.array(z.looseObject({ name: z.string(), targetPort: z.string() })),
  }),
});
const Monitor = z.looseObject({
  spec: z.looseObject({
    selector: z.looseObject({ matchLabels: z.record(z.string(), z.string()) }),
    endpoints: z.array(z.looseObject({ port: z.string() })).default([]),
    podMetricsEndpoints: z.array(z.looseObject({ port: z.string() })).default([]),
  }),
});
const Target = z.looseObject({ spec: z.looseObject({ scaleTargetRef: z.looseObject({ name: z.string() }) }) });

describe.skipIf(helm === null).each(Object.entries(VARIANTS))("the chart, %s (skipped without helm)", (name, options) => {
  const objects = helm === null ? [] : render(options);
  const workloads = workloadsOf(objects);
  const rendered = new Set(objects.map(idOf));
  const ofKind = (kind: string): KubeObject[] => objects.filter((object) => object.kind === kind);
  const mode = name === "gpu-fleet" ? "userNamespaces" : name === "privileged" ? "privileged" : "restricted";

  it("runs pods under pod security `restricted`, but for what the sandbox was asked to have", () => {
    for (const workload of workloads) {
      const { pod } = workload;
      const relaxed = isAgent(workload) ? mode : "restricted";
      const where = idOf(workload.object);
      for (const host of ["hostNetwork", "hostPID"]) expect(pod[host], where).toBeUndefined();
      expect(pod["hostIPC"] ?? false, where).toBe(false);
      expect(pod.securityContext["runAsNonRoot"], where).toBe(isInstaller(workload) ? undefined : true);
      expect(
        pod.volumes.some((volume) => volume.hostPath),
        where,
      ).toBe(isInstaller(workload));
      expect(pod.securityContext.seccompProfile.type, where).toBe(relaxed === "userNamespaces" ? "Localhost" : "RuntimeDefault");
      expect(pod.securityContext["appArmorProfile"], where).toEqual(relaxed === "userNamespaces" ? { type: "Unconfined" } : undefined);
      for (const { securityContext } of containersOf(workload)) {
        expect(securityContext["readOnlyRootFilesystem"], where).toBe(true);
        if (relaxed === "privileged") expect(securityContext, where).toEqual({ privileged: true, readOnlyRootFilesystem: true });
        else
          expect(securityContext, where).toEqual({
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ["ALL"] },
            ...(relaxed === "userNamespaces" ? { procMount: "Unmasked" } : {}),
          });
      }
      if (isAgent(workload)) expect(pod["hostUsers"], where).toBe(name === "gvisor");
    }
  });

  it("gives no pod a token of the API server but the hook that writes Secrets, and no account a Role but its", () => {
    for (const { object, pod } of workloads) {
      expect(pod.automountServiceAccountToken, idOf(object)).toBe(object.metadata.name.endsWith("-keys"));
      expect(pod["enableServiceLinks"], idOf(object)).toBe(false);
    }
    for (const account of ofKind("ServiceAccount")) expect(account["automountServiceAccountToken"]).toBe(false);
    expect(objects.filter(({ apiVersion, kind }) => apiVersion.startsWith("rbac") && !/^Role(Binding)?$/.test(kind))).toEqual([]);
    const rules = ofKind("Role").flatMap((role) => z.array(z.unknown()).parse(role["rules"]));
    expect(rules).toEqual(
      options.set?.some((value) => value.startsWith("nats.existingSecret="))
        ? []
        : [
            { apiGroups: [""], resources: ["secrets"], verbs: ["create"] },
            expect.objectContaining({
              resources: ["secrets"],
              verbs: ["get"],
              resourceNames: expect.toSatisfy((names: string[]) => names.length === 4) as string[],
            }),
          ],
    );
  });

  it("bounds every container's memory, asks for what it needs, and pins its image", () => {
    for (const workload of workloads)
      for (const { image, resources } of containersOf(workload)) {
        expect(Object.keys(resources.requests), idOf(workload.object)).toEqual(expect.arrayContaining(["cpu", "memory"]));
        expect(Object.keys(resources.limits), idOf(workload.object)).toContain("memory");
        expect(image, idOf(workload.object)).toMatch(/:(?!latest$)[\w.-]+$|@sha256:[0-9a-f]{64}$/);
      }
  });

  it("probes what serves, at ports that are there", () => {
    for (const workload of workloads)
      for (const container of containersOf(workload).filter(({ ports }) => ports.length > 0)) {
        const probes = [container.startupProbe, container.livenessProbe, container.readinessProbe];
        expect(container.readinessProbe, container.name).toBeDefined();
        if (container.name !== "exporter") expect(probes, container.name).not.toContain(undefined);
        for (const probe of probes) if (probe) expect(container.ports.map((port) => port.name)).toContain(probe.httpGet.port);
      }
  });

  it("refers to nothing that is neither rendered nor named by an existingSecret", () => {
    for (const workload of workloads) {
      const { object, pod } = workload;
      const sources = pod.volumes.flatMap((volume) => [volume, ...(volume.projected?.sources ?? [])]);
      const referred = [
        `ServiceAccount/${pod.serviceAccountName}`,
        ...pod.imagePullSecrets.map((secret) => `Secret/${secret.name}`),
        ...pod.resourceClaims.map((claim) => `ResourceClaimTemplate/${claim.resourceClaimTemplateName}`),
        ...sources.flatMap((source) => (source.configMap ? [`ConfigMap/${source.configMap.name}`] : [])),
        ...pod.volumes.flatMap((volume) => (volume.secret ? [`Secret/${volume.secret.secretName}`] : [])),
        ...pod.volumes.flatMap((volume) =>
          volume.persistentVolumeClaim ? [`PersistentVolumeClaim/${volume.persistentVolumeClaim.claimName}`] : [],
        ),
        ...(typeof pod["priorityClassName"] === "string" ? [`PriorityClass/${pod["priorityClassName"]}`] : []),
      ];
      expect(
        referred.filter((id) => !rendered.has(id) && !EXISTING.has(id)),
        idOf(object),
      ).toEqual([]);
      const claims = z
        .array(KubeMetadata)
        .parse(z.looseObject({ volumeClaimTemplates: z.array(z.unknown()).default([]) }).parse(object["spec"] ?? {}).volumeClaimTemplates);
      const volumes = [...pod.volumes.map((volume) => volume.name), ...claims.map(({ metadata }) => metadata.name)];
      for (const container of containersOf(workload))
        for (const mount of container.volumeMounts) expect(volumes, `${idOf(object)}: ${mount.mountPath}`).toContain(mount.name);
    }
  });

  it("aims every Service, monitor, scaler and budget at pods and ports that are there", () => {
    const selected = (selector: Record<string, string>): Workload[] => workloads.filter(({ labels }) => covers(selector, labels));
    const portsOf = (found: readonly Workload[]): string[] =>
      found.flatMap((w) => w.pod.containers.flatMap((c) => c.ports.map((port) => port.name)));
    for (const object of ofKind("Service")) {
      const { selector, ports } = Service.parse(object).spec;
      expect(selected(selector), idOf(object)).toHaveLength(1);
      for (const port of ports) expect(portsOf(selected(selector)), idOf(object)).toContain(port.targetPort);
    }
    for (const object of ofKind("ServiceMonitor")) {
      const { selector, endpoints } = Monitor.parse(object).spec;
      const [service, ...more] = ofKind("Service").filter(({ metadata }) => covers(selector.matchLabels, metadata.labels));
      expect(more, idOf(object)).toEqual([]);
      for (const { port } of endpoints) expect(Service.parse(service).spec.ports.map((p) => p.name)).toContain(port);
    }
    for (const object of ofKind("PodMonitor")) {
      const { selector, podMetricsEndpoints } = Monitor.parse(object).spec;
      for (const { port } of podMetricsEndpoints) expect(portsOf(selected(selector.matchLabels))).toContain(port);
    }
    for (const object of [...ofKind("HorizontalPodAutoscaler"), ...ofKind("ScaledObject")]) {
      const deployment = objects.find((o) => idOf(o) === `Deployment/${Target.parse(object).spec.scaleTargetRef.name}`);
      expect(z.looseObject({}).parse(deployment?.["spec"]), "two would set the replicas").not.toHaveProperty("replicas");
    }
    for (const object of ofKind("PodDisruptionBudget"))
      expect(selected(MatchLabels.parse(object).spec.selector.matchLabels), idOf(object)).toHaveLength(1);
  });

  it("stops everything that no NetworkPolicy allows, for every pod, and names ports that its pods have", () => {
    const policies = ofKind("NetworkPolicy").map((object) => ({ object, ...Policy.parse(object).spec }));
    const selects = ({ podSelector }: (typeof policies)[number], labels: Record<string, string>): boolean =>
      covers(podSelector.matchLabels, labels) &&
      podSelector.matchExpressions.every(({ key, operator, values }) => values.includes(labels[key] ?? "") === (operator === "In"));
    for (const { object, labels, pod } of workloads) {
      const own = policies.filter((policy) => selects(policy, labels));
      const denying = own.find((policy) => policy.object.metadata.name.endsWith("-default-deny"));
      expect(denying?.policyTypes, idOf(object)).toEqual(["Ingress", "Egress"]);
      expect(denying?.ingress, idOf(object)).toEqual([]);
      const ports = pod.containers.flatMap((container) => container.ports.map((port) => port.name));
      for (const port of own.flatMap((policy) => policy.ingress.flatMap((rule) => rule.ports.map((p) => p.port))))
        expect(ports, idOf(object)).toContain(port);
    }
    for (const policy of policies)
      expect(
        workloads.some(({ labels }) => selects(policy, labels)),
        policy.object.metadata.name,
      ).toBe(true);
  });

  it("labels everything alike, and no workload selects another's pods", () => {
    for (const object of objects)
      expect(object.metadata.labels, idOf(object)).toMatchObject({
        "app.kubernetes.io/name": "vibeserve",
        "app.kubernetes.io/instance": "vs",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/component": expect.stringMatching(/./) as string,
      });
    for (const workload of workloads.filter(({ object }) => !["Job", "Pod"].includes(object.kind))) {
      const { matchLabels } = MatchLabels.parse(workload.object).spec.selector;
      expect(workloads.filter(({ labels }) => covers(matchLabels, labels)).map(({ object }) => idOf(object))).toEqual([
        idOf(workload.object),
      ]);
    }
    expect(rendered.size, "no name twice").toBe(objects.length);
  });

  it("puts no secret into a ConfigMap, an environment or a Secret of its own", () => {
    expect(ofKind("Secret")).toEqual([]);
    for (const object of ofKind("ConfigMap"))
      expect(JSON.stringify(object["data"])).not.toMatch(/-----BEGIN|\bS[AUO][A-Z2-7]{50}|password|seed|bearer/i);
    for (const workload of workloads)
      for (const container of containersOf(workload)) {
        expect(container["envFrom"]).toBeUndefined();
        for (const { name: variable, value, valueFrom } of container.env) {
          expect(JSON.stringify(valueFrom ?? {}), variable).not.toContain("Key");
          if (/KEY|TOKEN|SECRET|PASSWORD|JOIN/.test(variable)) expect(value, variable).toMatch(/^\/(etc|var\/run)\//);
        }
      }
  });

  it("lets every agent hand back its job before it is killed", () => {
    for (const { object, pod } of workloads)
      for (const { env } of pod.containers) {
        const drainMs = env.find((variable) => variable.name === "VIBESERVE_AGENT_DRAIN_MS")?.value;
        if (drainMs !== undefined) expect(pod.terminationGracePeriodSeconds, idOf(object)).toBeGreaterThan(Number(drainMs) / 1000 + 30);
      }
  });
});
const KubeMetadata = z.looseObject({ metadata: z.looseObject({ name: z.string() }) });

describe.skipIf(helm === null)("names (skipped without helm)", () => {
  it("of pods are ids of agents, however long the release's is", () => {
    const agents = workloadsOf(render({ release: "r".repeat(53), preset: "gpu-fleet" })).filter(({ pod }) =>
      pod.containers.some(({ env }) => env.some((variable) => variable.name === "VIBESERVE_AGENT_AGENT_ID")),
    );
    expect(agents.map(({ object }) => object.kind)).toEqual(expect.arrayContaining(["DaemonSet", "Deployment"]));
    for (const { object } of agents) {
      const suffix = object.kind === "DaemonSet" ? 6 : 17;
      expect(object.metadata.name.length + suffix, idOf(object)).toBeLessThanOrEqual(48);
    }
  });
});
