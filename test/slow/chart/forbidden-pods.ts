/** A worker pod as far as the changes below need it. */
export interface Made {
  metadata: { name: string; labels: Record<string, string>; annotations?: Record<string, string> };
  spec: {
    containers: (Record<string, unknown> & {
      name: string;
      args: string[];
      env: Record<string, unknown>[];
      ports: { hostPort?: number }[];
      volumeMounts: Record<string, unknown>[];
      securityContext: Record<string, unknown>;
    })[];
    securityContext: Record<string, unknown>;
    volumes: Record<string, unknown>[];
    [more: string]: unknown;
  };
}

interface Forbidden {
  /** The rule that must say no. */
  rule: string;
  what: string;
  /** Whose pod is changed; nvidia's, which has a user namespace of its own, where none is named. */
  podClass?: "amd";
  change: (pod: Made) => void;
}

const spec = (rule: string, what: string, fields: Record<string, unknown>, podClass?: "amd"): Forbidden => ({
  ...{ rule, what, ...(podClass === undefined ? {} : { podClass }) },
  change: (pod) => Object.assign(pod.spec, fields),
});
const container = (rule: string, what: string, fields: Record<string, unknown>): Forbidden => ({
  ...{ rule, what },
  change: (pod) => Object.assign(agentOf(pod), fields),
});
const confined = (rule: string, what: string, fields: Record<string, unknown>): Forbidden => ({
  ...{ rule, what },
  change: (pod) => Object.assign(agentOf(pod).securityContext, fields),
});
const podContext = (rule: string, what: string, fields: Record<string, unknown>): Forbidden => ({
  ...{ rule, what },
  change: (pod) => Object.assign(pod.spec.securityContext, fields),
});
const volume = (what: string, source: Record<string, unknown>): Forbidden => ({
  ...{ rule: "volumes", what },
  change: (pod) => pod.spec.volumes.push({ name: "more", ...source }),
});

/** Puts these fields into what the pod has of weights. */
const weights = (
  rule: string,
  what: string,
  { volume: source, mount }: { volume?: Record<string, unknown>; mount?: Record<string, unknown> },
  podClass?: "amd",
): Forbidden => ({
  ...{ rule, what, ...(podClass === undefined ? {} : { podClass }) },
  change: (pod) => {
    for (const one of pod.spec.volumes) if (one["name"] === "weights") Object.assign(one, source);
    for (const one of agentOf(pod).volumeMounts) if (one["name"] === "weights") Object.assign(one, mount);
  },
});
/** In the place of whatever source it has: JSON leaves out what is undefined. */
const claimOf = (claimName: string) => ({ hostPath: undefined, persistentVolumeClaim: { claimName } });
const folderOf = (path: string, type = "Directory") => ({ persistentVolumeClaim: undefined, hostPath: { path, type } });

function agentOf({ spec: { containers } }: Made): Made["spec"]["containers"][number] {
  const [agent] = containers;
  if (!agent) throw new Error("no container");
  return agent;
}

const SHELL = { name: "shell", image: "busybox:1", command: ["sh"] };
/** One that is fine but for one thing each; the API server itself takes them all. */
export const FORBIDDEN: Forbidden[] = [
  { rule: "worker", what: "no worker's label", change: ({ metadata }) => delete metadata.labels["vibeserve.dev/worker-owner"] },
  {
    rule: "worker",
    what: "another's worker",
    change: ({ metadata: { labels } }) => (labels["vibeserve.dev/worker-owner"] = "vt-vibeserve"),
  },
  { rule: "worker", what: "a class that is none", change: ({ metadata: { labels } }) => (labels["vibeserve.dev/worker-class"] = "cpu") },
  {
    rule: "worker",
    what: "what Services and network policies know the broker by",
    change: ({ metadata: { labels } }) => (labels["app.kubernetes.io/component"] = "nats"),
  },
  {
    rule: "containers",
    what: "a second container",
    change: ({ spec: s }) => s.containers.push({ ...SHELL, args: [], env: [], ports: [], volumeMounts: [], securityContext: {} }),
  },
  spec("containers", "a container before it", { initContainers: [SHELL] }),
  container("containers", "a hook", { lifecycle: { postStart: { exec: { command: ["sh"] } } } }),
  container("containers", "another name", { name: "main" }),
  container("image", "another image", { image: "busybox:1" }),
  container("image", "another class's image", { image: "vibeserve/agent-rocm:0.1.0" }),
  container("image", "another command", { command: ["/bin/sh"] }),
  { rule: "image", what: "one option more", change: (pod) => agentOf(pod).args.push("--no-sandbox") },
  spec("account", "another service account", { serviceAccountName: "vs-vibeserve-coordinator" }),
  spec("account", "its token is mounted", { automountServiceAccountToken: true }),
  spec("host", "the host's network", { hostNetwork: true }, "amd"),
  spec("host", "the host's processes", { hostPID: true }, "amd"),
  spec("host", "the host's IPC", { hostIPC: true }, "amd"),
  spec("host", "the host's users", { hostUsers: true }),
  spec("host", "a node of its choice", { nodeName: "control-a" }),
  { rule: "host", what: "a port of the host", change: (pod) => agentOf(pod).ports.forEach((port) => (port.hostPort = 9465)) },
  confined("privileges", "privileged", { privileged: true, allowPrivilegeEscalation: true }),
  confined("privileges", "may gain privileges", { allowPrivilegeEscalation: true }),
  confined("privileges", "writes its root file system", { readOnlyRootFilesystem: false }),
  confined("privileges", "all of /proc", { procMount: "Unmasked" }),
  container("privileges", "no security context", { securityContext: {} }),
  confined("capabilities", "one more", { capabilities: { add: ["SYS_ADMIN"], drop: ["ALL"] } }),
  confined("capabilities", "the runtime's own", { capabilities: { drop: [] } }),
  podContext("user", "may be root", { runAsNonRoot: false }),
  confined("user", "may be root in its container", { runAsNonRoot: false }),
  confined("user", "root", { runAsUser: 0 }),
  podContext("user", "another user", { runAsUser: 1000 }),
  podContext("user", "a group of the node", { supplementalGroups: [0] }),
  podContext("user", "the group of root", { runAsGroup: 0 }),
  confined("user", "the group of root in its container", { runAsGroup: 0 }),
  podContext("user", "another group that its weights are given to", { fsGroup: 1000 }),
  podContext("confinement", "no seccomp", { seccompProfile: { type: "Unconfined" } }),
  confined("confinement", "no seccomp in its container", { seccompProfile: { type: "Unconfined" } }),
  confined("confinement", "no AppArmor", { appArmorProfile: { type: "Unconfined" } }),
  podContext("confinement", "no AppArmor for the pod", { appArmorProfile: { type: "Unconfined" } }),
  {
    rule: "confinement",
    what: "no AppArmor, as it was said before",
    change: ({ metadata }) => (metadata.annotations = { "container.apparmor.security.beta.kubernetes.io/agent": "unconfined" }),
  },
  confined("confinement", "another SELinux type", { seLinuxOptions: { type: "spc_t" } }),
  podContext("confinement", "a sysctl", { sysctls: [{ name: "kernel.shm_rmid_forced", value: "1" }] }),
  spec("runtime", "the default runtime", { runtimeClassName: undefined }),
  spec("runtime", "another runtime", { runtimeClassName: "gvisor" }),
  volume("a folder of the host", { hostPath: { path: "/" } }),
  volume("the broker's keys", { secret: { secretName: "vs-vibeserve-server" } }),
  volume("a ConfigMap", { configMap: { name: "kube-root-ca.crt" } }),
  volume("the coordinator's disk", claimOf("vs-vibeserve-data")),
  volume("a disk of its own", {
    ephemeral: { volumeClaimTemplate: { spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } } } },
  }),
  volume("a token for the API server", { projected: { sources: [{ serviceAccountToken: { path: "token" } }] } }),
  volume("a Secret among tokens", { projected: { sources: [{ secret: { name: "vs-vibeserve-server" } }] } }),
  weights("volumes", "another claim in the place of its weights", {
    volume: { persistentVolumeClaim: { claimName: "vs-vibeserve-data" } },
  }),
  weights("volumes", "another folder of the host's in the place of its weights", { volume: folderOf("/etc") }, "amd"),
  weights("volumes", "a folder of the host's that is made", { volume: folderOf("/mnt/weights", "DirectoryOrCreate") }, "amd"),
  weights("volumes", "another class's weights", { volume: folderOf("/mnt/weights") }),
  weights("volumes", "weights by another name", { volume: { name: "more" }, mount: { name: "more" } }),
  weights("weights", "may write to weights", { mount: { readOnly: false } }),
  weights("weights", "may write to a folder of the host's", { mount: { readOnly: false } }, "amd"),
  weights("weights", "weights over something else", { mount: { mountPath: "/opt/vibeserve" } }),
  weights("weights", "another folder of its weights", { mount: { subPath: "private" } }),
  weights("weights", "a folder of its weights that a variable names", { mount: { subPath: undefined, subPathExpr: "$(HOME)" } }),
  container("environment", "all of a Secret", { envFrom: [{ secretRef: { name: "vs-vibeserve-server" } }] }),
  {
    rule: "environment",
    what: "one key of a Secret",
    change: (pod) => agentOf(pod).env.push({ name: "A", valueFrom: { secretKeyRef: { name: "vs-vibeserve-server", key: "a" } } }),
  },
  spec("claims", "a claim that is there", { resourceClaims: [{ name: "devices", resourceClaimName: "all-of-them" }] }),
  spec("priority", "before the system's own", { priorityClassName: "system-node-critical" }),
];
