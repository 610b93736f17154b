import { spawn, type ChildProcess } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { request, type RequestOptions } from "node:https";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stringify } from "yaml";
import { z } from "zod";
import { makeAuthority, makeCertificate } from "../../coordinator/src/broker/own-authority.ts";
import { certificateIn } from "../../coordinator/src/broker/tls.ts";
import { KubeObject, kubeTools } from "./chart.ts";
import { freePorts } from "./free-ports.ts";

const PROGRAMS = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"] as const;
/** Which programs are not there. */
export const missingPrograms = PROGRAMS.filter((name) => !existsSync(join(kubeTools, name)));
export const crdFolder = join(kubeTools, "../crds");

const Resources = z.looseObject({ resources: z.array(z.looseObject({ name: z.string(), kind: z.string(), namespaced: z.boolean() })) });
const List = z.looseObject({ apiVersion: z.string(), kind: z.string(), items: z.array(z.looseObject({})) });
const READY_MS = 60_000;

export interface Answer {
  status: number;
  body: unknown;
}
/** What the API server says when it refuses. */
export const messageOf = ({ body }: Answer): string => z.looseObject({ message: z.string().default("") }).parse(body).message;

/** Of the Service `kubernetes`. */
const FIRST_SERVICE = "10.0.0.1";

export interface PlaneOptions {
  /** Where the API server listens and nodes reach it; default: this machine alone. */
  address?: string;
  /** Default: a free one. Policies of the network see this one behind the Service's 443. */
  port?: number;
  /** Nodes are kwok's (default): objects whose pods it calls running and ready and whose Jobs' pods it calls succeeded. Nothing is learned of what a container does. */
  kwok?: boolean;
}

/** A Kubernetes control plane of this test's own: etcd, API server, controller manager and scheduler are the real programs. Certificates as kubeadm names them. */
export class ControlPlane implements AsyncDisposable {
  readonly #children: ChildProcess[] = [];
  readonly #dir: string;
  readonly #kinds = new Map<string, { path: string; namespaced: boolean }>();
  #port = 0;
  #ca = "";
  readonly #token = "admin-of-this-test";

  readonly #address: string;

  private constructor(dir: string, address: string) {
    [this.#dir, this.#address] = [dir, address];
  }

  static async start(dir: string, { address = "127.0.0.1", ...options }: PlaneOptions = {}): Promise<ControlPlane> {
    const plane = new ControlPlane(dir, address);
    try {
      await plane.#start(options);
      return plane;
    } catch (error) {
      await plane[Symbol.asyncDispose]();
      throw error;
    }
  }

  get kubeconfig(): string {
    return join(this.#dir, "kubeconfig");
  }
  get url(): string {
    return `https://${this.#address}:${this.#port}`;
  }
  get caFile(): string {
    return join(this.#dir, "authority.pem");
  }

  async #start({ port, kwok = true }: PlaneOptions): Promise<void> {
    const [etcdPort, peerPort, apiPort = 0] = await freePorts(3);
    this.#port = port ?? apiPort;
    const authority = await makeAuthority();
    const inside = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    const served = join(this.#dir, "api.pem");
    writeFileSync(served, await makeCertificate(authority, [...inside, FIRST_SERVICE, this.#address]), { mode: 0o600 });
    writeFileSync(this.caFile, (this.#ca = certificateIn(authority)));
    const keys = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const accountKey = join(this.#dir, "accounts.key");
    writeFileSync(accountKey, keys.privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
    writeFileSync(join(this.#dir, "tokens.csv"), `${this.#token},admin,admin,system:masters\n`, { mode: 0o600 });
    const etcd = `http://127.0.0.1:${etcdPort}`;
    this.#spawn("etcd", [
      ...["--data-dir", join(this.#dir, "etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--log-level", "error"],
      ...["--listen-peer-urls", `http://127.0.0.1:${peerPort}`, "--unsafe-no-fsync"],
    ]);
    this.#spawn("kube-apiserver", [
      ...["--etcd-servers", etcd, "--secure-port", String(this.#port), "--bind-address", this.#address],
      ...["--advertise-address", this.#address, "--tls-cert-file", served, "--tls-private-key-file", served],
      // Nodes' names are in no DNS.
      ...["--kubelet-preferred-address-types", "InternalIP"],
      ...["--token-auth-file", join(this.#dir, "tokens.csv"), "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/16"],
      // As every distribution sets it: what may be privileged is for policies to say.
      "--allow-privileged=true",
      ...["--service-account-issuer", "https://kubernetes.default.svc.cluster.local", "--service-account-key-file", accountKey],
      // Debian's etcd 3.4 tells no progress of watches, without which lists can't be streamed: clients then list and watch.
      ...["--service-account-signing-key-file", accountKey, "--feature-gates", "WatchList=false"],
    ]);
    await until("the API server is ready", async () => (await this.ask("GET", "/readyz").catch(() => null))?.status === 200);
    const cluster = { server: this.url, "certificate-authority": this.caFile };
    writeFileSync(
      this.kubeconfig,
      stringify({
        ...{ apiVersion: "v1", kind: "Config", "current-context": "test" },
        clusters: [{ name: "test", cluster }],
        users: [{ name: "admin", user: { token: this.#token } }],
        contexts: [{ name: "test", context: { cluster: "test", user: "admin" } }],
      }),
    );
    const common = ["--kubeconfig", this.kubeconfig, "--leader-elect=false", "--secure-port", "0"];
    this.#spawn("kube-controller-manager", [...common, "--service-account-private-key-file", accountKey, "--root-ca-file", this.caFile]);
    this.#spawn("kube-scheduler", common);
    if (kwok)
      this.#spawn("kwok", ["--kubeconfig", this.kubeconfig, "--manage-all-nodes=true", "--config", join(kubeTools, "../stages.yaml")]);
  }

  #spawn(name: (typeof PROGRAMS)[number], args: readonly string[]): void {
    mkdirSync(join(this.#dir, "logs"), { recursive: true });
    // To a file and not through this process, which waits for helm and reads nothing meanwhile.
    const log = openSync(join(this.#dir, "logs", `${name}.log`), "w");
    const child = spawn(join(kubeTools, name), args, {
      stdio: ["ignore", log, log],
      cwd: this.#dir,
    });
    closeSync(log);
    this.#children.push(child);
  }

  /** One request; as the test's administrator unless a token says otherwise. */
  async ask(method: string, path: string, body?: unknown, { token = this.#token, type = "application/json" } = {}): Promise<Answer> {
    const options: RequestOptions = {
      ...{ method, host: this.#address, port: this.#port, path, ca: this.#ca, timeout: 30_000, agent: false },
      headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "content-type": type }) },
    };
    return new Promise((resolve, reject) => {
      const sent = request(options, (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          resolve({ status: answer.statusCode ?? 0, body: text.startsWith("{") ? (JSON.parse(text) as unknown) : { message: text } });
        });
      });
      sent.on("error", reject);
      sent.on("timeout", () => sent.destroy(new Error(`${method} ${path}: no answer in 30 s`)));
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Where objects of this kind are. Throws for one that the API server does not serve. */
  async place(apiVersion: string, kind: string, namespace: string): Promise<string> {
    const base = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    if (!this.#kinds.has(`${apiVersion} ${kind}`)) {
      const { status, body } = await this.ask("GET", base);
      if (status !== 200) throw new Error(`${apiVersion} is not served`);
      for (const { name, kind: served, namespaced } of Resources.parse(body).resources)
        if (!name.includes("/")) this.#kinds.set(`${apiVersion} ${served}`, { path: `${base}/@/${name}`, namespaced });
    }
    const found = this.#kinds.get(`${apiVersion} ${kind}`);
    if (!found) throw new Error(`${apiVersion} has no ${kind}`);
    return found.path.replace("@/", found.namespaced ? `namespaces/${namespace}/` : "");
  }

  /** Throws what the API server says. */
  async create(object: unknown, namespace = "default"): Promise<KubeObject> {
    const { apiVersion, kind } = KubeObject.parse(object);
    const answer = await this.ask("POST", await this.place(apiVersion, kind, namespace), object);
    if (answer.status !== 201) throw new Error(`${kind}: ${answer.status}: ${messageOf(answer)}`);
    return KubeObject.parse(answer.body);
  }

  /** Nothing is stored; unknown and repeated fields are refused. */
  async validate(object: KubeObject, namespace: string): Promise<Answer> {
    const path = await this.place(object.apiVersion, object.kind, namespace);
    return this.ask("POST", `${path}?dryRun=All&fieldValidation=Strict`, object);
  }

  async list(apiVersion: string, kind: string, namespace: string): Promise<KubeObject[]> {
    const { body } = await this.ask("GET", await this.place(apiVersion, kind, namespace));
    return List.parse(body).items.map((item) => KubeObject.parse({ apiVersion, kind, ...item }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The API server waits for its watchers, so it goes last but one, and nothing here is worth waiting for.
    for (const child of this.#children.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    }
  }
}

/** Throws when it takes longer than limitMs; default: a minute. */
export async function until(what: string, holds: () => Promise<boolean>, limitMs = READY_MS): Promise<void> {
  const signal = AbortSignal.timeout(limitMs);
  while (!(await holds())) {
    if (signal.aborted) throw new Error(`${what}: not within ${limitMs / 1000} s`);
    await sleep(200);
  }
}
