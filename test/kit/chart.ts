import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse, parseAllDocuments } from "yaml";
import { z } from "zod";
import { findProgram } from "./programs.ts";
import { cacheDir } from "./weights.ts";

export const CHART = join(import.meta.dirname, "../../deploy/helm/vibeserve");
export const PRESETS = ["", "small", "gpu-fleet", "airgap", "openshift"] as const;
export type Preset = (typeof PRESETS)[number];

/** Where test/slow/chart/kube-tools.sh puts what it makes. */
export const kubeTools = join(process.env["VIBESERVE_KUBE_TOOLS"] ?? join(cacheDir(), "kube-tools"), "bin");
export const helm = findProgram("helm", [kubeTools], "tests of the chart (test/slow/chart/kube-tools.sh helm makes it)");

export interface Ended {
  code: number | null;
  out: string;
  err: string;
}
export function runTool(file: string, args: readonly string[], env: NodeJS.ProcessEnv): Ended {
  const { status, stdout, stderr } = spawnSync(file, args, { encoding: "utf8", maxBuffer: 2 ** 26, env });
  return { code: status, out: stdout, err: stderr };
}
export const runHelm = (args: readonly string[], env: NodeJS.ProcessEnv = process.env): Ended => runTool(helm ?? "helm", args, env);

const Labels = z.record(z.string(), z.string()).default({});
/** A Kubernetes object as far as all have it. */
export const KubeObject = z.looseObject({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.looseObject({ name: z.string(), namespace: z.string().optional(), labels: Labels, annotations: Labels }),
});
export type KubeObject = z.infer<typeof KubeObject>;

const Reference = z.looseObject({ name: z.string() });
const Probe = z.looseObject({ httpGet: z.looseObject({ path: z.string(), port: z.union([z.string(), z.number()]) }) });
export const Container = z.looseObject({
  name: z.string(),
  image: z.string(),
  command: z.array(z.string()).default([]),
  args: z.array(z.string()).default([]),
  env: z.array(z.looseObject({ name: z.string(), value: z.string().optional(), valueFrom: z.unknown().optional() })).default([]),
  ports: z.array(z.looseObject({ name: z.string(), containerPort: z.number() })).default([]),
  volumeMounts: z.array(z.looseObject({ name: z.string(), mountPath: z.string(), readOnly: z.boolean().default(false) })).default([]),
  resources: z.looseObject({ requests: z.record(z.string(), z.string()), limits: z.record(z.string(), z.string()) }),
  securityContext: z.looseObject({}),
  startupProbe: Probe.optional(),
  livenessProbe: Probe.optional(),
  readinessProbe: Probe.optional(),
});
export type Container = z.infer<typeof Container>;

const Volume = z.looseObject({
  name: z.string(),
  configMap: Reference.optional(),
  secret: z.looseObject({ secretName: z.string() }).optional(),
  persistentVolumeClaim: z.looseObject({ claimName: z.string() }).optional(),
  projected: z
    .looseObject({ sources: z.array(z.looseObject({ configMap: Reference.optional(), secret: Reference.optional() })) })
    .optional(),
  hostPath: z.looseObject({}).optional(),
});
export const PodSpec = z.looseObject({
  serviceAccountName: z.string(),
  automountServiceAccountToken: z.boolean(),
  terminationGracePeriodSeconds: z.number().optional(),
  containers: z.array(Container),
  initContainers: z.array(Container).default([]),
  volumes: z.array(Volume).default([]),
  imagePullSecrets: z.array(Reference).default([]),
  securityContext: z.looseObject({ seccompProfile: z.looseObject({ type: z.string() }) }),
  resourceClaims: z.array(z.looseObject({ resourceClaimTemplateName: z.string() })).default([]),
});
export type PodSpec = z.infer<typeof PodSpec>;

/** An object that makes pods, or one. */
export interface Workload {
  object: KubeObject;
  labels: Record<string, string>;
  pod: PodSpec;
}

const Template = z.looseObject({
  spec: z.looseObject({ template: z.looseObject({ metadata: z.looseObject({ labels: Labels }), spec: PodSpec }) }),
});

export const workloadsOf = (objects: readonly KubeObject[]): Workload[] =>
  objects.flatMap((object): Workload[] => {
    if (object.kind === "Pod") return [{ object, labels: object.metadata.labels, pod: PodSpec.parse(object["spec"]) }];
    if (!["Deployment", "StatefulSet", "DaemonSet", "Job"].includes(object.kind)) return [];
    const { template } = Template.parse(object).spec;
    return [{ object, labels: template.metadata.labels, pod: template.spec }];
  });

/** Those that run before its own among them. */
export const containersOf = ({ pod }: Workload): Container[] => [...pod.initContainers, ...pod.containers];

/** The first of this name; throws where none is. */
export function containerOf(objects: readonly KubeObject[], name: string): Container {
  const [found] = workloadsOf(objects).flatMap(({ pod }) => pod.containers.filter((container) => container.name === name));
  if (!found) throw new Error(`no container ${name}`);
  return found;
}

const NatsConf = z.looseObject({ data: z.looseObject({ "nats.conf": z.string() }) });
/** What the servers are told. */
export const natsConf = (objects: readonly KubeObject[]): string =>
  NatsConf.parse(objects.find((object) => idOf(object) === "ConfigMap/vs-vibeserve-nats")).data["nats.conf"];

export const idOf = ({ kind, metadata }: KubeObject): string => `${kind}/${metadata.name}`;

/** Helm reads YAML 1.1, in which 0440 is octal. */
export function parseObjects(text: string): KubeObject[] {
  return parseAllDocuments(text, { version: "1.1", merge: false })
    .map((document): unknown => {
      if (document.errors.length > 0) throw new Error(document.errors.map(String).join("\n"));
      const value: unknown = document.toJS();
      return value;
    })
    .filter((value) => value !== null && value !== undefined)
    .map((value) => KubeObject.parse(value));
}

export interface RenderOptions {
  preset?: Preset;
  /** `--set` of helm. */
  set?: readonly string[];
  /** `--set-json`. */
  json?: readonly string[];
  /** Further values files. */
  files?: readonly string[];
  release?: string;
}
const fileOf = (preset: Preset): string => join(CHART, preset === "" ? "values.yaml" : `values-${preset}.yaml`);
/** How helm is told of it. */
export const presetArgs = (preset: Preset): string[] => (preset === "" ? [] : ["--values", fileOf(preset)]);

export const renderArgs = ({ preset = "", set = [], json = [], files = [], release = "vs" }: RenderOptions): string[] => [
  ...[release, CHART, "--namespace", "vibe"],
  ...presetArgs(preset),
  ...files.flatMap((file) => ["--values", file]),
  ...set.flatMap((value) => ["--set", value]),
  ...json.flatMap((value) => ["--set-json", value]),
];

/** Objects of the chart, hooks among them. Throws what helm says. */
export function render(options: RenderOptions = {}): KubeObject[] {
  const { code, out, err } = runHelm(["template", ...renderArgs(options)]);
  if (code !== 0) throw new Error(err);
  return parseObjects(out);
}

export function valuesOf(preset: Preset): unknown {
  const values: unknown = parse(readFileSync(fileOf(preset), "utf8"), { version: "1.1" });
  return values;
}

/** What docs/install/<page>.md would have a reader put into a values file, written to `dir`. */
export function guideValues(page: string, dir: string): string {
  const text = readFileSync(join(CHART, "../../../docs/install", `${page}.md`), "utf8");
  const file = join(dir, `${page}.yaml`);
  writeFileSync(file, /```yaml\n([\s\S]*?)```/.exec(text)?.[1] ?? "");
  return file;
}
export const GUIDES = ["gke", "eks", "kubernetes"] as const;
