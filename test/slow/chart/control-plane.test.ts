import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import {
  CHART,
  containerOf,
  GUIDES,
  guideValues,
  helm,
  idOf,
  parseObjects,
  PRESETS,
  presetArgs,
  render,
  renderArgs,
  runHelm,
  type Ended,
  type KubeObject,
} from "../../kit/chart.ts";
import { ControlPlane, crdFolder, messageOf, missingPrograms, until } from "../../kit/control-plane.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { makeDevices, makeNodes, makeVolumes, NODES } from "./fake-nodes.ts";

const absent = [...(helm === null ? ["helm"] : []), ...missingPrograms];
if (absent.length > 0) process.stderr.write(`skipped: ${absent.join(", ")} not there; test/slow/chart/kube-tools.sh makes them\n`);

const Pod = z.looseObject({ spec: z.looseObject({ nodeName: z.string().optional() }), status: z.looseObject({ phase: z.string() }) });
const WAIT = ["--wait", "--timeout", "60s"];
const Uid = z.looseObject({ metadata: z.looseObject({ uid: z.string() }) });

/** No kubelet runs here: kwok says that pods run. What containers do is not seen. */
describe.skipIf(absent.length > 0)("the chart on a real control plane (skipped where one can't be had)", () => {
  const dir = tempDir("chart-plane");
  let plane!: ControlPlane;

  beforeAll(async () => {
    plane = await ControlPlane.start(dir.path);
    await makeNodes(plane);
    await makeDevices(plane, "b200-a");
    await makeVolumes(plane, 10);
    for (const file of readdirSync(crdFolder)) await plane.create(parse(readFileSync(join(crdFolder, file), "utf8")));
    for (const [name, level] of [
      ["vibe", "restricted"],
      ["fleet", "privileged"],
      ["check", "privileged"],
    ])
      await plane.create({
        apiVersion: "v1",
        kind: "Namespace",
        metadata: { name, labels: { "pod-security.kubernetes.io/enforce": level } },
      });
    // The GPU operator makes it.
    await plane.create({ apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: "nvidia" }, handler: "nvidia" });
    // A pod of its own, the smoke test's, is refused where its account is not there.
    await plane.create({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "vs-vibeserve-coordinator" } }, "check");
    for (const group of ["monitoring.coreos.com/v1", "keda.sh/v1alpha1"])
      await until(`${group} is served`, async () => (await plane.ask("GET", `/apis/${group}`)).status === 200);
  }, 180_000);
  afterAll(async () => {
    await plane[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });

  const run = (...args: string[]): Ended => {
    const home = join(dir.path, "helm");
    mkdirSync(home, { recursive: true });
    return runHelm(args, {
      ...process.env,
      HOME: home,
      HELM_CACHE_HOME: home,
      HELM_CONFIG_HOME: home,
      HELM_DATA_HOME: home,
      KUBECONFIG: plane.kubeconfig,
    });
  };
  const done = ({ code, out, err }: Ended): string => {
    expect(code, out + err).toBe(0);
    return out;
  };
  /** Which nodes have a running pod of the component, or of the class of agents. */
  const nodesOf = async (namespace: string, component: string): Promise<string[]> =>
    (await plane.list("v1", "Pod", namespace))
      .filter(({ metadata: { labels } }) => [labels["app.kubernetes.io/component"], labels["vibeserve.dev/class"]].includes(component))
      .map((pod) => Pod.parse(pod))
      .map(({ spec, status }) => (status.phase === "Running" ? (spec.nodeName ?? "no node") : status.phase))
      .sort();
  const uidsOf = async (): Promise<Record<string, string>> => {
    const kept = [...(await plane.list("v1", "PersistentVolumeClaim", "vibe")), ...(await plane.list("v1", "Secret", "vibe"))];
    return Object.fromEntries(
      kept.filter(({ metadata }) => !metadata.name.startsWith("sh.helm.")).map((object) => [idOf(object), Uid.parse(object).metadata.uid]),
    );
  };
  const logLevel = async (): Promise<string> => {
    const [coordinator] = await plane.list("apps/v1", "Deployment", "vibe");
    return /"VIBESERVE_LOG_LEVEL","value":"(\w+)"/.exec(JSON.stringify(coordinator))?.[1] ?? "";
  };
  /** Hooks' Jobs are gone by the time that helm returns; their events tell. */
  const completions = async (job: string): Promise<number> =>
    (await plane.list("v1", "Event", "vibe")).filter(
      (event) => event["reason"] === "Completed" && JSON.stringify(event["involvedObject"]).includes(`"${job}"`),
    ).length;

  const main = join(CHART, "../../../coordinator/src/main.ts");
  /** The hook's own, with this token. */
  const keysCommand = (token: string) => {
    writeFileSync(join(dir.path, "token"), token);
    const env = {
      VIBESERVE_KUBERNETES_API: plane.url,
      VIBESERVE_KUBERNETES_API_CA: plane.caFile,
      VIBESERVE_KUBERNETES_API_TOKEN_FILE: join(dir.path, "token"),
    };
    // A pod's namespace is in a file that only a kubelet makes.
    return spawnSync(process.execPath, [main, ...containerOf(render(), "keys").args, "--namespace", "vibe"], {
      encoding: "utf8",
      cwd: dir.path,
      env: { PATH: process.env["PATH"], ...env },
    });
  };

  it.each([...PRESETS, ...GUIDES])("every object is valid to the API server, strictly: %s", async (name) => {
    const preset = PRESETS.find((one) => one === name);
    const objects = render(preset === undefined ? { files: [guideValues(name, dir.path)] } : { preset });
    const refused: string[] = [];
    for (const object of objects.filter((one) => idOf(one) !== "ServiceAccount/vs-vibeserve-coordinator")) {
      const answer = await plane.validate(object, "check");
      if (answer.status !== 201) refused.push(`${idOf(object)}: ${answer.status}: ${messageOf(answer)}`);
    }
    expect(refused).toEqual([]);
  });

  it("so is every object that docs/install/kubernetes.md has one write", async () => {
    const blocks = [
      ...readFileSync(join(CHART, "../../../docs/install/kubernetes.md"), "utf8").matchAll(/```yaml\n(apiVersion[\s\S]*?)```/g),
    ];
    expect(blocks).toHaveLength(1);
    for (const [, text = ""] of blocks)
      for (const object of parseObjects(text)) {
        const answer = await plane.validate(object, "check");
        expect(answer.status, `${idOf(object)}: ${messageOf(answer)}`).toBe(201);
      }
  });

  it("a field that is none is refused by name, so the check above can fail", async () => {
    const found = render().find(({ kind }) => kind === "StatefulSet") ?? expect.fail("no StatefulSet");
    const text = JSON.stringify(found).replace('"serviceAccountName"', '"serviceAcountName"');
    const answer = await plane.validate(JSON.parse(text) as KubeObject, "vibe");
    expect([answer.status, messageOf(answer)]).toEqual([400, expect.stringContaining("serviceAcountName")]);
  });

  it("installs and waits, in a namespace that enforces pod security `restricted`; agents are on nodes of their kind alone", async () => {
    done(run("install", ...renderArgs({}), ...WAIT));
    expect(await completions("vs-vibeserve-keys")).toBe(1);
    expect(await nodesOf("vibe", "nvidia")).toEqual(["h100-a"]);
    expect(await nodesOf("vibe", "amd")).toEqual(["mi300x-a"]);
    expect(await nodesOf("vibe", "cpu")).toEqual(["cpu-a"]);
    expect(await nodesOf("vibe", "coordinator")).toHaveLength(1);
    expect(new Set(await nodesOf("vibe", "nats")).size, "servers are on nodes of their own").toBe(3);
  });

  it("the hook's account may make the four Secrets and read them, and nothing more", async () => {
    for (const object of render().filter(
      ({ metadata }) => metadata.name.endsWith("-keys") && metadata.annotations["helm.sh/hook-weight"] === "-20",
    ))
      await plane.create({ ...object, metadata: { name: object.metadata.name } }, "vibe");
    const { body } = await plane.ask("POST", "/api/v1/namespaces/vibe/serviceaccounts/vs-vibeserve-keys/token", {
      apiVersion: "authentication.k8s.io/v1",
      kind: "TokenRequest",
      spec: {},
    });
    const { token } = z.looseObject({ status: z.looseObject({ token: z.string() }) }).parse(body).status;
    const secrets = "/api/v1/namespaces/vibe/secrets";
    const made = keysCommand(token);
    expect(made.status, made.stderr).toBe(0);
    for (const part of ["server", "coordinator", "join", "client"]) {
      const secret = { apiVersion: "v1", kind: "Secret", metadata: { name: `vs-vibeserve-${part}` }, stringData: { stand: "in" } };
      expect((await plane.ask("POST", secrets, secret, { token })).status, "the command made it").toBe(409);
      expect((await plane.ask("GET", `${secrets}/vs-vibeserve-${part}`, undefined, { token })).status).toBe(200);
      expect((await plane.ask("PUT", `${secrets}/vs-vibeserve-${part}`, secret, { token })).status).toBe(403);
      expect((await plane.ask("DELETE", `${secrets}/vs-vibeserve-${part}`, undefined, { token })).status).toBe(403);
    }
    for (const path of [
      secrets,
      `${secrets}/sh.helm.release.v1.vs.v1`,
      "/api/v1/namespaces/vibe/pods",
      "/api/v1/namespaces/default/secrets/x",
    ])
      expect((await plane.ask("GET", path, undefined, { token })).status, path).toBe(403);
  });

  it("upgrade looks first, rollback goes back; claims and Secrets are the same objects throughout", async () => {
    const before = await uidsOf();
    expect(Object.keys(before)).toEqual(
      expect.arrayContaining(["PersistentVolumeClaim/vs-vibeserve-data", "Secret/vs-vibeserve-coordinator"]),
    );
    done(run("upgrade", ...renderArgs({ set: ["coordinator.logLevel=debug"] }), "--reuse-values", ...WAIT));
    expect(await logLevel()).toBe("debug");
    expect(await completions("vs-vibeserve-upgrade-check")).toBe(1);
    done(run("rollback", "vs", "1", "--namespace", "vibe", ...WAIT));
    expect(await logLevel()).toBe("info");
    expect(await completions("vs-vibeserve-upgrade-check")).toBe(2);
    expect(await uidsOf()).toEqual(before);
  });

  it("uninstall leaves claims and keys, which docs/install/kubernetes.md names, and nothing else", async () => {
    done(run("uninstall", "vs", "--namespace", "vibe", ...WAIT));
    await until("pods are gone", async () => (await plane.list("v1", "Pod", "vibe")).length === 0);
    const kinds = [
      "v1 ConfigMap",
      "v1 Secret",
      "v1 Service",
      "v1 ServiceAccount",
      "v1 PersistentVolumeClaim",
      "apps/v1 Deployment",
      "apps/v1 StatefulSet",
      "apps/v1 DaemonSet",
    ];
    const more = ["batch/v1 Job", "networking.k8s.io/v1 NetworkPolicy", "policy/v1 PodDisruptionBudget"];
    const left: string[] = [];
    for (const kind of [...kinds, ...more]) {
      const [apiVersion = "", name = ""] = kind.split(" ");
      left.push(...(await plane.list(apiVersion, name, "vibe")).map(idOf));
    }
    const ofTheNamespace = ["ConfigMap/kube-root-ca.crt", "ServiceAccount/default"];
    const ofTheTestAbove = ["ServiceAccount/vs-vibeserve-keys"];
    expect(left.filter((id) => ![...ofTheNamespace, ...ofTheTestAbove].includes(id)).sort()).toEqual([
      ...["nats-0", "nats-1", "nats-2"].map((server) => `PersistentVolumeClaim/store-vs-vibeserve-${server}`),
      "PersistentVolumeClaim/vs-vibeserve-data",
      ...["client", "coordinator", "join", "server"].map((part) => `Secret/vs-vibeserve-${part}`),
    ]);
    const guide = readFileSync(join(CHART, "../../../docs/install/kubernetes.md"), "utf8");
    for (const name of ["-data", "store-", "-client", "-coordinator", "-join", "-server"]) expect(guide).toContain(name);
  });

  it("a fleet: each class has a pod on each node of its kind and on no other, also by dynamic resource allocation", async () => {
    done(run("install", "vs", CHART, "--namespace", "fleet", ...presetArgs("gpu-fleet"), ...WAIT));
    expect({
      h100: await nodesOf("fleet", "h100"),
      h100mig: await nodesOf("fleet", "h100mig"),
      l4: await nodesOf("fleet", "l4"),
      b200: await nodesOf("fleet", "b200"),
      amd: await nodesOf("fleet", "amd"),
      cpu: await nodesOf("fleet", "cpu"),
    }).toEqual({ h100: ["h100-a"], h100mig: ["h100-mig"], l4: ["l4-a"], b200: ["b200-a"], amd: ["mi300x-a"], cpu: ["cpu-a"] });
    expect(await nodesOf("fleet", "seccomp"), "on every node").toEqual(Object.keys(NODES).sort());
    const builders = await nodesOf("fleet", "builder");
    expect(
      builders.filter((node) => /h100|l4|b200|mi300x|cpu|control/.test(node)),
      "not where something is measured",
    ).toEqual([]);
    const [claim, ...others] = await plane.list("resource.k8s.io/v1", "ResourceClaim", "fleet");
    expect(others).toEqual([]);
    expect(JSON.stringify(claim?.["status"]).match(/"device":"gpu-\d"/g), "all of its node's").toHaveLength(8);
  });
});
