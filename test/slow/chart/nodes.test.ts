import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { stringify } from "yaml";
import { z } from "zod";
import { joiningAgent } from "../../kit/agent-process.ts";
import { CHART, idOf, runHelm, type Ended } from "../../kit/chart.ts";
import { until } from "../../kit/control-plane.ts";
import type { RealNodes } from "../../kit/real-nodes.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { clusterProblem, SHARED, startNodes } from "./cluster.ts";

if (clusterProblem !== null) process.stderr.write(`skipped, the chart on real nodes: ${clusterProblem}\n`);
vi.setConfig({ testTimeout: 420_000, hookTimeout: 600_000 });

const NAME = "vs-vibeserve";
const COORDINATOR = `deploy/${NAME}-coordinator`;
const NODE_PORT = 30422;
const WAIT = ["--wait", "--timeout", "4m"];
/** A machine of two processors has all three nodes, each of which says that it has both. */
const ROOM = {
  coordinator: { resources: { requests: { cpu: "200m" } } },
  nats: { resources: { requests: { cpu: "100m" } } },
  agents: { resources: { requests: { cpu: "300m", memory: "1Gi" } } },
  weights: { existingClaim: "models", coordinator: true },
};
const sandbox = (mode: string): object => ({ agents: { sandbox: { mode, seccomp: { install: true } } } });
/** A lease's pod, on whatever an extended resource stands for: the image and its device are a CPU's. */
const LEASE = {
  ...{
    images: { agentCuda: { repository: "vibeserve/agent-cpu" } },
    builders: { enabled: true, replicas: 1, resources: { requests: { cpu: "100m" } } },
  },
  agents: {
    classes: {
      ...{ nvidia: null, amd: null, cpu: null },
      slot: {
        ...{ enabled: true, family: "cuda", pool: "slots", runtimeClassName: "", nodeSelector: { "vibeserve.dev/agent": "cpu" } },
        gpu: {
          mode: "lease-pod",
          resource: "test.invalid/slot",
          count: 1,
          labels: { "vibeserve.dev/device.kind": "cpu" },
          lingerSeconds: 5,
        },
      },
    },
  },
};

const Pods = z.object({
  items: z.array(
    z.looseObject({
      metadata: z.looseObject({ name: z.string() }),
      status: z.looseObject({ phase: z.string(), podIP: z.string().optional() }),
    }),
  ),
});

/** kubelet, containerd, runc, kube-proxy and an enforcer of NetworkPolicies are real, and so is all that runs in the pods. Nodes are namespaces of this machine. */
describe.skipIf(clusterProblem !== null)("the chart on three real nodes (skipped where they can't be had)", () => {
  let dir!: ReturnType<typeof tempDir>;
  let cluster!: RealNodes;
  const own = new AsyncDisposableStack();
  let upgrades = 0;

  beforeAll(async () => {
    dir = own.use(tempDir("nodes"));
    cluster = own.use(await startNodes(dir.path));
    await cluster.plane.create({
      ...{ apiVersion: "v1", kind: "Namespace" },
      metadata: { name: "vibe", labels: { "pod-security.kubernetes.io/enforce": "restricted" } },
    });
    await cluster.plane.create(
      {
        ...{ apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: { name: "models" } },
        spec: { accessModes: ["ReadWriteMany"], storageClassName: SHARED, resources: { requests: { storage: "1Gi" } } },
      },
      "vibe",
    );
  });
  afterAll(() => own.disposeAsync());

  const done = ({ code, out, err }: Ended): string => {
    if (code === 0) return out;
    const pods = cluster.kubectl("get", "pods", "-A").out;
    const events = cluster.kubectl("get", "events", "-n", "vibe", "--field-selector", "type!=Normal").out;
    const check = cluster.kubectl("logs", "-n", "vibe", `job/${NAME}-upgrade-check`).out;
    return expect.fail(`${code}: ${out}${err}\n${pods}\n${events}\n${check}`);
  };
  const helm = (...args: string[]): string => {
    const home = join(dir.path, "helm");
    mkdirSync(home, { recursive: true });
    return done(runHelm([...args, "--namespace", "vibe"], { ...process.env, HOME: home, KUBECONFIG: cluster.plane.kubeconfig }));
  };
  /** install or upgrade with these values. */
  const deploy = (verb: string, ...values: object[]): string => {
    const external = {
      externalAccess: { enabled: true, type: "NodePort", nodePort: NODE_PORT, hosts: [`${cluster.addressOf("node-b")}:${NODE_PORT}`] },
    };
    const files = [ROOM, external, ...values].flatMap((value, i) => {
      const file = join(dir.path, `values-${i}.yaml`);
      writeFileSync(file, stringify(value));
      return ["--values", file];
    });
    return helm(verb, "vs", CHART, ...files, ...WAIT);
  };
  const kubectl = (...args: string[]): string => done(cluster.kubectl("--namespace", "vibe", ...args));
  const within = (what: string, ...command: string[]): string => kubectl("exec", what, "--", ...command);
  const vibeserve = (...args: string[]): string => within(COORDINATOR, "/opt/vibeserve/bin/vibeserve", ...args);
  const pods = (component: string): z.infer<typeof Pods>["items"] =>
    Pods.parse(JSON.parse(kubectl("get", "pods", "-l", `app.kubernetes.io/component=${component}`, "-o", "json"))).items;
  const ipOf = (component: string): string => pods(component)[0]?.status.podIP ?? expect.fail(`no ${component}`);
  const agents = (): string => vibeserve("agents");
  const sandboxOf = (): string => kubectl("logs", "-l", "app.kubernetes.io/component=agent", "--tail", "-1");

  /** A campaign of one experiment on the model drawn at random. */
  const submit = (): string => {
    within(COORDINATOR, "sh", "-c", "sed 's/experiments: 4/experiments: 1/' /var/lib/vibeserve/random-llama-1.yaml >/tmp/short.yaml");
    return /campaign (\S+) submitted/.exec(vibeserve("submit", "/tmp/short.yaml"))?.[1] ?? expect.fail("no campaign");
  };
  const Row = z.looseObject({ campaign: z.string(), state: z.string(), reason: z.string() });
  const stateOf = async (campaign: string): Promise<{ state: string; reason: string }> => {
    // While the coordinator is away nobody says.
    const { code, out } = cluster.kubectl("exec", "-n", "vibe", COORDINATOR, "--", "/opt/vibeserve/bin/vibeserve", "status", "--json");
    // Asking costs a processor that the campaign is measured on.
    await sleep(3_000);
    if (code !== 0) return { state: "", reason: "" };
    const { campaigns } = z.looseObject({ campaigns: z.array(Row) }).parse(JSON.parse(out));
    return campaigns.find((row) => row.campaign === campaign) ?? expect.fail(`no campaign ${campaign}`);
  };
  /** Throws where it ends otherwise. */
  const comesTo = async (campaign: string, what: string, there: (row: { state: string; reason: string }) => boolean): Promise<void> => {
    let last = { state: "", reason: "" };
    try {
      await until(
        what,
        async () => {
          last = await stateOf(campaign);
          // On processors that others use, runs are refused until it is given up: a person goes on with it then.
          if (last.state === "paused") vibeserve("resume", campaign);
          else expect(["", "waiting", "running", "ended"]).toContain(last.state);
          return there(last);
        },
        300_000,
      );
    } catch (error) {
      throw new Error(
        `${String(error)}: ${JSON.stringify(last)}\n${cluster.kubectl("logs", "-n", "vibe", COORDINATOR, "--tail", "40").out}`,
      );
    }
  };
  const proven = (campaign: string): Promise<void> =>
    comesTo(campaign, "it has ended", ({ state, reason }) => state === "ended" && reason.includes("proven better"));
  const told = (campaign: string): string => vibeserve("watch", campaign);

  it("installs with --wait, as it is, into a namespace that enforces `restricted`; the smoke campaign passes; doctor finds nothing", () => {
    deploy("install");
    expect(agents()).toMatch(/vs-vibeserve-cpu-\S+ +ready .*no sandbox/);
    expect(helm("test", "vs", "--logs")).toContain("smoke: ok");
    expect(vibeserve("doctor")).not.toMatch(/^FAIL/m);
    const logged = kubectl("logs", COORDINATOR).trim().split("\n");
    expect(logged.map((line) => z.looseObject({ event: z.string() }).parse(JSON.parse(line)).event)).toContain("coordinator.ready");
    expect(within(COORDINATOR, "grep", "-E", "^Cap(Eff|Bnd)|^NoNewPrivs|^Seccomp:", "/proc/1/status").replaceAll("\t", " ")).toBe(
      "CapEff: 0000000000000000\nCapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n",
    );
  });

  it("policies of the network let through what is needed and nothing else", async () => {
    const agent = pods("agent")[0]?.metadata.name ?? "";
    const dial = `import socket, sys
for where in sys.argv[1:]:
    host, port = where.rsplit(":", 1)
    try: socket.create_connection((host, int(port)), 2).close(); print("open")
    except OSError: print("shut")`;
    const nats = ipOf("nats");
    const places = [`${ipOf("coordinator")}:9464`, `${nats}:4222`, `${nats}:6222`, `${nats}:8222`, "10.0.0.1:443"];
    const from = (pod: string, ...to: string[]): string =>
      within(pod, "python3", "-c", dial, ...to)
        .trim()
        .replaceAll("\n", " ");
    expect(from(agent, ...places), "an agent: its broker").toBe("shut open shut shut shut");
    const securityContext = { runAsUser: 10001, runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } };
    const confined = { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } };
    const container = { name: "c", image: "vibeserve/agent-cpu:0.1.0", command: ["sleep", "infinity"], securityContext: confined };
    await cluster.plane.create(
      {
        ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "stranger" } },
        spec: { automountServiceAccountToken: false, securityContext, containers: [container] },
      },
      "vibe",
    );
    kubectl("wait", "--for=condition=Ready", "pod/stranger", "--timeout=60s");
    const seen = from("stranger", ...places, `${ipOf("agent")}:9465`);
    kubectl("delete", "pod", "stranger", "--grace-period=1");
    expect(seen, "another pod: metrics, the broker for nodes from outside, and what no policy of ours is about").toBe(
      "open open shut shut open shut",
    );
  });

  it("a node from outside joins over TLS by the NodePort and the line that the guide has printed", async () => {
    const line = /'([^']+)'/.exec(vibeserve("agents", "token"))?.[1] ?? "";
    expect(line).toContain(`${cluster.addressOf("node-b")}:${NODE_PORT}`);
    const agent = joiningAgent("outsider", join(dir.path, "outsider"), ["--join", line, "--machine-lock", "outsider"]);
    try {
      await agent.said(/waiting for approval|taking jobs/);
      if (/waiting for approval/.test(agent.log())) vibeserve("agents", "approve", "outsider");
      await agent.said(/taking jobs/);
      expect(agents()).toMatch(/outsider +ready/);
      vibeserve("agents", "revoke", "outsider");
    } finally {
      agent.kill("SIGTERM");
      await agent.exited;
    }
  });

  it.each(["privileged", "userNamespaces"])(
    "upgrade to sandbox mode %s, which works; what is there was looked at and saved before",
    (mode) => {
      cluster.kubectl("label", "namespace", "vibe", "pod-security.kubernetes.io/enforce=privileged", "--overwrite");
      deploy("upgrade", sandbox(mode));
      expect(sandboxOf()).toContain('"sandbox":"bubblewrap"');
      expect(agents()).toMatch(/vs-vibeserve-cpu-\S+ +ready(?!.*no sandbox)/);
      expect(within(COORDINATOR, "ls", "/var/lib/vibeserve/backups").trim().split("\n")).toHaveLength(++upgrades);
      expect(kubectl("get", "daemonset", `${NAME}-cpu`, "-o", "jsonpath={.spec.template.spec.hostUsers}")).toBe("false");
    },
  );

  it("a real campaign crowns a champion, though its coordinator's pod, a broker's and then the agent's are deleted on the way", async () => {
    expect(vibeserve("checkpoint")).toMatch(/submit .*random-llama-1\.yaml/);
    const campaign = submit();
    await comesTo(campaign, "the first experiment is measured", ({ reason }) => reason.startsWith("e1 bench"));
    kubectl("delete", "pod", "-l", "app.kubernetes.io/component=coordinator", "--wait=false");
    kubectl("delete", "pod", `${NAME}-nats-0`, "--wait=false");
    const [first] = pods("agent");
    await until("the coordinator is back", async () => (await stateOf(campaign)).state !== "");
    kubectl("delete", "pod", first?.metadata.name ?? "", "--wait=false");
    await proven(campaign);
    const words = told(campaign);
    expect(words).toContain("sandbox bubblewrap");
    expect(words).toMatch(/champion e1 crowned: \d/);
    process.stderr.write(`${words}\n`);
  });

  it("a lease gets a pod of its own, on a node with the device, and the pod goes when its work is done", async () => {
    await cluster.plane.ask(
      "PATCH",
      "/api/v1/nodes/node-c/status",
      { status: { capacity: { "test.invalid/slot": "1" }, allocatable: { "test.invalid/slot": "1" } } },
      { type: "application/merge-patch+json" },
    );
    deploy("upgrade", sandbox("userNamespaces"), LEASE);
    expect(pods("agent")).toEqual([]);
    const campaign = submit();
    await proven(campaign);
    expect(told(campaign)).toMatch(/device vs-vibeserve-slot-\S+-cpu/);
    await until("its pod is gone", () => Promise.resolve(pods("agent").length === 0));
    const logged = kubectl("logs", COORDINATOR);
    expect(logged).toContain('"event":"worker-pod.deleted"');
    const starts = [...logged.matchAll(/"worker-pod.registered".*"startMs":(\d+)/g)].map((match) => Number(match[1]));
    expect(starts.length).toBeGreaterThan(0);
    process.stderr.write(`worker pods registered after ${starts.join(", ")} ms\n`);
  });

  it("rollback goes back; uninstalled and installed again it goes on with its campaigns", async () => {
    helm("rollback", "vs", "3", ...WAIT);
    expect(agents()).toMatch(/vs-vibeserve-cpu-\S+ +ready/);
    helm("uninstall", "vs", "--wait");
    const names = (): string[] => Pods.parse(JSON.parse(kubectl("get", "pods", "-o", "json"))).items.map(({ metadata }) => metadata.name);
    await until("pods are gone, but for that of the last helm test", () => Promise.resolve(names().join() === `${NAME}-smoke`), 120_000);
    const left = [
      ...(await cluster.plane.list("v1", "PersistentVolumeClaim", "vibe")),
      ...(await cluster.plane.list("v1", "Secret", "vibe")),
    ].map(idOf);
    expect(left).toHaveLength(4 + 1 + 4);
    deploy("install", sandbox("userNamespaces"));
    const { campaigns } = z.looseObject({ campaigns: z.array(Row) }).parse(JSON.parse(vibeserve("status", "--json")));
    expect(campaigns.filter((row) => row.reason.includes("proven better") && row.campaign.startsWith("random-llama-1"))).toHaveLength(2);
  });
});
