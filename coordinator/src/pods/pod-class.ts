import { existsSync, readFileSync } from "node:fs";
import { Id } from "@vibeserve/shared";
import { parse } from "yaml";
import { z } from "zod";

/** The container of a template that runs gpu-agent. */
const AGENT_CONTAINER = "agent";
/** On every worker pod: its class, and whose it is. */
export const CLASS_LABEL = "vibeserve.dev/worker-class";
export const OWNER_LABEL = "vibeserve.dev/worker-owner";

/** A pod's name is `<owner>-<class>-<5 letters>`, it is its agent's id, and a device's id begins with at most 48 of its letters. */
const Name = z.string().regex(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/, "must be 1 to 22 of a-z, 0-9 and -, as in a pod's name");

const PodClass = z.strictObject({
  name: Name,
  /** Pool that its pods join. One kind of device each, as for any pool. */
  pool: Id,
  /** Labels that its pods' devices will carry, for targets that ask for a device before there was a pod. */
  labels: z.record(z.string(), z.string()).default({}),
  /** Pods at once, at most; what the namespace's quota allows. */
  max: z.int().min(1).max(1000),
  /** A pod that had no work for so long ends. 20: check, bench and profile of one candidate follow each other within seconds, a turn of a model takes minutes. */
  lingerSeconds: z.number().min(0).max(3600).default(20),
  /** A pod whose agent has not registered by then is deleted. 900: images with a GPU runtime are some 10 GB. What waits for admission (Kueue) is not counted. */
  startSeconds: z.number().min(10).max(7200).default(900),
  /** A Pod's metadata and spec. */
  template: z.object({
    metadata: z
      .object({ labels: z.record(z.string(), z.string()).default({}) })
      .loose()
      .default({ labels: {} }),
    spec: z
      .object({
        containers: z
          .array(z.object({ name: z.string(), env: z.array(z.object({ name: z.string() }).loose()).default([]) }).loose())
          .min(1),
      })
      .loose(),
  }),
});
export type PodClass = z.infer<typeof PodClass>;

const PodClasses = z.strictObject({
  /** Whose pods these are; another coordinator in the namespace has another. */
  owner: Name,
  namespace: z.string().min(1),
  classes: z.array(PodClass).min(1),
});
export type PodClasses = z.infer<typeof PodClasses>;

/** YAML 1.1, as Kubernetes reads it: 0440 is a mode. Throws with the file, the place and what is wrong. */
export function readPodClasses(path: string): PodClasses {
  if (!existsSync(path)) throw new Error(`VIBESERVE_WORKER_PODS: there is no file ${path}`);
  const parsed = PodClasses.safeParse(parse(readFileSync(path, "utf8"), { version: "1.1" }));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new Error(`${path}: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? "not valid"}`);
  }
  for (const { name, template } of parsed.data.classes)
    if (!template.spec.containers.some((container) => container.name === AGENT_CONTAINER))
      throw new Error(`${path}: class ${name}: template has no container "${AGENT_CONTAINER}"`);
  for (const key of ["name", "pool"] as const) {
    const seen = parsed.data.classes.map((c) => c[key]);
    const twice = seen.find((value, i) => seen.indexOf(value) !== i);
    if (twice !== undefined) throw new Error(`${path}: two classes have ${key} ${twice}`);
  }
  return parsed.data;
}

/** The pod to create. The agent's id is the pod's name: a pod lives once, so its agent's key is never asked for again. */
export function podOf({ owner, namespace }: PodClasses, podClass: PodClass, name: string): unknown {
  const { metadata, spec } = podClass.template;
  const settings = {
    VIBESERVE_AGENT_AGENT_ID: name,
    VIBESERVE_AGENT_POOL: podClass.pool,
    VIBESERVE_AGENT_EXIT_WHEN_IDLE: String(podClass.lingerSeconds),
  };
  const env = Object.entries(settings).map(([key, value]) => ({ name: key, value }));
  const containers = spec.containers.map((container) =>
    container.name === AGENT_CONTAINER ? { ...container, env: [...container.env.filter((v) => !(v.name in settings)), ...env] } : container,
  );
  const labels = { ...metadata.labels, [CLASS_LABEL]: podClass.name, [OWNER_LABEL]: owner };
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { ...metadata, name, namespace, labels },
    spec: { ...spec, containers, restartPolicy: "Never" },
  };
}
