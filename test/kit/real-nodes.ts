import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stringify } from "yaml";
import { z } from "zod";
import { kubeTools, runTool, type Ended } from "./chart.ts";
import { ControlPlane, missingPrograms, until } from "./control-plane.ts";
import { removeGroup } from "./machine.ts";

const PROGRAMS = [
  "kubelet",
  "kube-proxy",
  "kube-router",
  "containerd",
  "containerd-shim-runc-v2",
  "ctr",
  "runc",
  "ptp",
  "loopback",
  "host-local",
];
const GROUPS = ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "systemd"].map(
  (name) => `/sys/fs/cgroup/${name}`,
);
/** Of what runs on a node. */
const ENV = { ...process.env, PATH: [kubeTools, process.env["PATH"]].join(delimiter) };
const FREE_BYTES = 12e9;
const PODS_DNS = "10.0.0.10";
export const PAUSE = "registry.k8s.io/pause:3.10";

/** Why there can be no real node here; null: there can. */
export const nodesProblem = problem();

function problem(): string | null {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "it needs Linux and root";
  const absent = [...missingPrograms, ...[...PROGRAMS, "kubectl", "coredns"].filter((name) => !existsSync(join(kubeTools, name)))];
  if (absent.length > 0) return `${absent.join(", ")} not there; test/slow/chart/kube-tools.sh makes them`;
  const tools = ["iptables", "ipset", "ip", "nsenter", "unshare", "setpriv"].filter(
    (tool) => spawnSync(tool, ["--version"]).error !== undefined,
  );
  if (tools.length > 0) return `there is no ${tools.join(", ")} (Debian: apt-get install iptables ipset iproute2 util-linux)`;
  const { bavail, bsize } = statfsSync(tmpdir());
  if (bavail * bsize < FREE_BYTES) return `${tmpdir()} has less than ${FREE_BYTES / 1e9} GB free, which images on three nodes take`;
  // Of cgroup v2 a container sees a part that is not its own to hand out.
  const groups = GROUPS.slice(0, 5).filter((group) => !existsSync(`${group}/cgroup.procs`));
  if (groups.length > 0) return `there is no ${groups.join(", ")}: nodes were only ever tried on cgroup v1`;
  const own = spawnSync(
    "unshare",
    ["-m", "-p", "-n", "--fork", "sh", "-c", "ip link add one type veth peer name two && iptables -t nat -L -n"],
    {
      encoding: "utf8",
    },
  );
  return own.status === 0 ? null : `no namespaces of its own, or no packet filter in them: ${own.stderr.trim()}`;
}

export interface NodeSpec {
  name: string;
  labels?: Record<string, string>;
}

/**
 * A cluster of real nodes on this machine: kubelet, containerd, runc, kube-proxy and an enforcer of NetworkPolicies (kube-router) for each, with mounts, network and usual
 * folders of its own; a routed network of pods. All are processes of one PID namespace, so that nothing of them outlives it. Kubelets act as administrators: what the
 * API server lets a node do is not seen. `nodesProblem` says why there can be none.
 */
export class RealNodes implements AsyncDisposable {
  readonly #dir: string;
  readonly #site: ChildProcess;
  readonly #net = `10.${200 + (process.pid % 50)}`;
  readonly #link = `vsk${process.pid % 100_000}`;
  readonly #cgroup = `vs-nodes-${process.pid}`;
  readonly #pids = new Map<string, number>();
  #plane: ControlPlane | null = null;

  private constructor(dir: string) {
    this.#dir = dir;
    this.#site = this.#first(
      ["setpriv", "--pdeathsig", "KILL", "unshare", "-m", "-p", "-n", "--fork", "--kill-child", "--mount-proc"],
      ["site"],
    );
  }

  static async start(dir: string, nodes: readonly NodeSpec[]): Promise<RealNodes> {
    const cluster = new RealNodes(dir);
    try {
      await cluster.#start(nodes);
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Of a node, as this machine reaches it. */
  addressOf(node: string): string {
    return this.#address([...this.#pids.keys()].indexOf(node));
  }
  #address(index: number): string {
    return `${this.#net}.0.${11 + index}`;
  }

  get plane(): ControlPlane {
    if (!this.#plane) throw new Error("there is no control plane yet");
    return this.#plane;
  }

  async #start(nodes: readonly NodeSpec[]): Promise<void> {
    const site = await this.#ready("the site", this.#site);
    const gateway = `${this.#net}.0.1`;
    ip("link", "add", this.#link, "type", "veth", "peer", "name", "out", "netns", String(site));
    ip("addr", "add", `${gateway}/24`, "dev", this.#link);
    ip("link", "set", this.#link, "up");
    const inSite = (...args: string[]): void =>
      void execFileSync("nsenter", ["-t", String(site), "-n", "ip", ...args], { stdio: ["ignore", "ignore", "pipe"] });
    const plug = (link: string): void => {
      inSite("link", "set", link, "master", "bridge0");
      inSite("link", "set", link, "up");
    };
    plug("out");
    const addresses = nodes.map((_, i) => this.#address(i));
    const pods = nodes.map((_, i) => `${this.#net}.${100 + i}.0/24`);
    // The API server answers pods by their own addresses. Routes go with the link.
    for (const [i, subnet] of pods.entries()) ip("route", "add", subnet, "via", addresses[i] ?? "");
    this.#plane = await ControlPlane.start(this.#dir, { address: gateway, port: 6443, kwok: false });
    for (const [i, { name, labels = {} }] of nodes.entries()) {
      const folder = join(this.#dir, name);
      mkdirSync(folder);
      const routes = pods.flatMap((subnet, j) => (i === j ? [] : [`${subnet}=${addresses[j]}`]));
      const within = ["nsenter", "-t", String(site), "-m", "-p", "-n", "unshare", "-m", "-n"];
      const child = this.#first(within, ["node", folder, name, addresses[i] ?? "", gateway, ...routes]);
      // It waits for its network card.
      const pid = await childOf(child);
      inSite("link", "add", `n${i}`, "type", "veth", "peer", "name", "eth0", "netns", String(pid));
      plug(`n${i}`);
      this.#pids.set(name, await this.#ready(name, child));
      this.#begin(name, folder, addresses[i] ?? "", pods[i] ?? "", labels);
    }
  }

  /** Process 1 of a namespace. */
  #first(within: readonly string[], args: readonly string[]): ChildProcess {
    const [program = "", ...before] = within;
    return spawn(program, [...before, "bash", join(import.meta.dirname, "real-nodes.sh"), ...args], {
      stdio: ["ignore", "pipe", "inherit"],
      detached: true,
    });
  }

  /** Pid of the shell, once it says that all is there. */
  async #ready(what: string, child: ChildProcess): Promise<number> {
    const [said] = (await Promise.race([once(child.stdout ?? child, "data"), once(child, "exit")])) as [unknown];
    if (!String(said).includes("ready")) throw new Error(`${what} did not begin: ${String(said)}`);
    return childOf(child);
  }

  #begin(name: string, folder: string, address: string, subnet: string, labels: Record<string, string>): void {
    const { kubeconfig } = this.plane;
    const socket = "/run/containerd.sock";
    const file = (name: string, text: string): string => {
      writeFileSync(join(folder, name), text);
      return join(folder, name);
    };
    mkdirSync(join(folder, "cni"));
    const addressing = { type: "host-local", ranges: [[{ subnet }]], routes: [{ dst: "0.0.0.0/0" }], dataDir: join(folder, "addresses") };
    file("cni/pods.conflist", JSON.stringify({ cniVersion: "1.0.0", name: "pods", plugins: [{ type: "ptp", ipam: addressing }] }));
    const runtime = `plugins."io.containerd.cri.v1.runtime"`;
    const containerd = file(
      "containerd.toml",
      `version = 3
root = "${folder}/containerd"
state = "/run/containerd"
[grpc]
address = "${socket}"
[${runtime}]
# Less than its own it may not give without CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
[${runtime}.cni]
bin_dirs = ["${kubeTools}"]
conf_dir = "${folder}/cni"
[${runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[${runtime}.containerd.runtimes.runc.options]
BinaryName = "${kubeTools}/runc"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "${PAUSE}"
[plugins."io.containerd.nri.v1.nri"]
disable = true
`,
    );
    const cgroup = `${this.#cgroup}-${name}`;
    for (const group of GROUPS) if (existsSync(group)) mkdirSync(join(group, cgroup), { recursive: true });
    const kubelet = file(
      "kubelet.yaml",
      stringify({
        ...{
          apiVersion: "kubelet.config.k8s.io/v1beta1",
          kind: "KubeletConfiguration",
          address,
          cgroupDriver: "cgroupfs",
          cgroupRoot: `/${cgroup}`,
        },
        authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
        ...{ authorization: { mode: "AlwaysAllow" }, containerRuntimeEndpoint: `unix://${socket}`, clusterDNS: [PODS_DNS] },
        ...{ clusterDomain: "cluster.local", failSwapOn: false, failCgroupV1: false, resolvConf: "", oomScoreAdj: 0 },
        // This machine's disk may be fuller than a node's, and images that were removed come from nowhere.
        evictionHard: { "memory.available": "100Mi", "nodefs.available": "200Mi", "imagefs.available": "200Mi", "nodefs.inodesFree": "1%" },
        imageGCHighThresholdPercent: 100,
      }),
    );
    const labelled = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    const as = ["--kubeconfig", kubeconfig, "--hostname-override", name];
    this.#run(name, "containerd", ["--config", containerd]);
    this.#run(name, "kubelet", [...as, "--config", kubelet, "--node-ip", address, "--node-labels", labelled.join(",")]);
  }

  #inside(node: string): string[] {
    return ["-t", String(this.#pids.get(node)), "-m", "-n", "-p", "--"];
  }

  #run(node: string, program: string, args: readonly string[]): void {
    const log = openSync(join(this.#dir, node, `${program}.log`), "a");
    const env = { ...ENV, NODE_NAME: node };
    spawn("nsenter", [...this.#inside(node), join(kubeTools, program), ...args], { stdio: ["ignore", log, log], env });
    closeSync(log);
  }

  /** A command on the node, in its network and mounts. */
  on(node: string, command: string, ...args: string[]): Ended {
    return runTool("nsenter", [...this.#inside(node), command, ...args], ENV);
  }

  /** Images from archives, as if a registry had been asked. */
  async load(node: string, archives: readonly string[]): Promise<void> {
    const ctr = (...args: string[]): Ended => this.on(node, "ctr", "--address", "/run/containerd.sock", "--namespace", "k8s.io", ...args);
    await until(`containerd of ${node} answers`, () => Promise.resolve(ctr("version").code === 0));
    for (const archive of archives) {
      const { code, err } = ctr("images", "import", archive);
      if (code !== 0) throw new Error(`${archive}: ${err}`);
    }
  }

  /** Resolves once all nodes are ready, and Services and policies are seen to on each. */
  async ready(): Promise<void> {
    const Ready = z.looseObject({
      status: z.looseObject({ conditions: z.array(z.looseObject({ type: z.string(), status: z.string() })) }),
    });
    await until("all nodes are ready", async () => {
      const nodes = await this.plane.list("v1", "Node", "");
      const good = nodes.filter((node) =>
        Ready.safeParse(node).data?.status.conditions.some((c) => c.type === "Ready" && c.status === "True"),
      );
      return good.length === this.#pids.size;
    });
    for (const name of this.#pids.keys()) {
      const as = ["--kubeconfig", this.plane.kubeconfig, "--hostname-override", name];
      // Limits of the whole machine's connections are not for it to set.
      const untouched = [
        "--conntrack-max-per-core",
        "0",
        "--conntrack-tcp-timeout-established",
        "0",
        "--conntrack-tcp-timeout-close-wait",
        "0",
      ];
      this.#run(name, "kube-proxy", [...as, "--proxy-mode", "iptables", ...untouched]);
      const policies = [
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--service-cluster-ip-range",
        "10.0.0.0/16",
      ];
      // It ends where its node is not registered yet.
      this.#run(name, "kube-router", [...as, ...policies]);
    }
  }

  kubectl(...args: string[]): Ended {
    return runTool(join(kubeTools, "kubectl"), args, { ...process.env, KUBECONFIG: this.plane.kubeconfig });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#plane?.[Symbol.asyncDispose]();
    if (this.#site.exitCode === null && this.#site.signalCode === null) {
      const gone = once(this.#site, "exit");
      // Its first process dies with it, and everything with that.
      this.#site.kill("SIGKILL");
      await gone;
    }
    for (const node of this.#pids.keys()) for (const group of GROUPS) await removeGroup(join(group, `${this.#cgroup}-${node}`));
  }
}

function ip(...args: string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
}

/** nsenter and unshare fork: the pid, as this machine knows it, of what they began. */
async function childOf(child: ChildProcess): Promise<number> {
  let pid = child.pid ?? 0;
  for (const deadline = Date.now() + 10_000; Date.now() < deadline;) {
    const name = readFileSync(`/proc/${pid}/comm`, "utf8").trim();
    if (name === "bash") return pid;
    const [next] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    if (next) pid = Number(next);
    await sleep(20);
  }
  throw new Error("no process began in its namespaces");
}
