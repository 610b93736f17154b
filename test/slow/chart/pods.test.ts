import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { containerOf, helm, natsConf, render, type Container } from "../../kit/chart.ts";
import { until } from "../../kit/control-plane.ts";
import { freePorts } from "../../kit/free-ports.ts";
import { natsServer } from "../../kit/real-broker.ts";
import { tempDir } from "../../kit/temp-dir.ts";

const MAIN = join(import.meta.dirname, "../../../coordinator/src/main.ts");

/** Rendered command lines, environments and mounts, run as processes of this machine: mounts are folders of a temporary one, pods' names and ports this machine's. */
describe.skipIf(helm === null)("what the chart's pods run (skipped without helm)", () => {
  const dir = tempDir("chart-pods");
  const objects = helm === null ? [] : render();
  const container = (name: string): Container => containerOf(objects, name);
  const children: ChildProcess[] = [];
  let ports: { client: number; cluster: number; monitor: number }[] = [];
  let http = 0;

  /** A path of a pod below a folder of ours. */
  const inside = (pod: string, mounts: readonly string[], text: string): string =>
    text.replaceAll(new RegExp(`(?<![\\w./])(${[...mounts].sort((a, b) => b.length - a.length).join("|")})(?=[/"\\s;,]|$)`, "g"), (mount) =>
      join(dir.path, pod, mount),
    );
  const mountsOf = ({ volumeMounts }: Container): string[] => volumeMounts.map(({ mountPath }) => mountPath);

  beforeAll(async () => {
    const [own = 0, ...free] = await freePorts(10);
    http = own;
    ports = [0, 3, 6].map((i) => ({ client: free[i] ?? 0, cluster: free[i + 1] ?? 0, monitor: free[i + 2] ?? 0 }));
  });
  afterAll(async () => {
    for (const child of children.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null)) {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    }
    dir[Symbol.dispose]();
  });

  it("the hook makes keys", () => {
    const args = container("keys").args;
    // Files in place of Secrets; the first server in place of the Service.
    const to = args.indexOf("--kubernetes-secrets");
    const own = [...args.slice(0, to), ...args.slice(to + 2), "--out", join(dir.path, "keys")];
    own[own.indexOf("--advertise") + 1] = `127.0.0.1:${ports[0]?.client ?? 0}`;
    const { status, stderr } = spawnSync(process.execPath, [MAIN, ...own], { encoding: "utf8", cwd: dir.path });
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });

  it("three servers form a cluster from the rendered configuration and those keys", async () => {
    const nats = container("nats");
    const mounts = ["/etc/nats", "/data", "/var/run/nats"];
    const conf = natsConf(objects);
    for (const [i, port] of ports.entries()) {
      const pod = `nats-${i}`;
      for (const mount of mounts) mkdirSync(join(dir.path, pod, mount), { recursive: true });
      cpSync(join(dir.path, "keys/server"), join(dir.path, pod, "etc/nats/keys"), { recursive: true });
      const auth = join(dir.path, pod, "etc/nats/keys/auth.conf");
      writeFileSync(auth, inside(pod, mounts, readFileSync(auth, "utf8")));
      const own = inside(pod, mounts, conf)
        .replaceAll("host: 0.0.0.0", "host: 127.0.0.1")
        .replace("port: 4222", `port: ${port.client}`)
        .replace("0.0.0.0:8222", `127.0.0.1:${port.monitor}`)
        .replace("port: 6222", `port: ${port.cluster}`)
        .replaceAll(/tls:\/\/vs-vibeserve-nats-(\d)\S*:6222/g, (_, n: string) => `tls://127.0.0.1:${ports[Number(n)]?.cluster ?? 0}`);
      writeFileSync(join(dir.path, pod, "etc/nats/nats.conf"), own);
      const env = { POD_NAME: `vs-vibeserve-nats-${i}` };
      children.push(
        spawn(
          natsServer,
          nats.args.map((arg) => inside(pod, mounts, arg)),
          { env, stdio: "ignore" },
        ),
      );
    }
    const meta = z.looseObject({ meta_cluster: z.looseObject({ leader: z.string().default(""), cluster_size: z.number() }) });
    for (const { monitor } of ports)
      await until("three servers agree on a leader", async () => {
        const answer = await fetch(`http://127.0.0.1:${monitor}/jsz`).catch(() => null);
        const found = answer?.ok ? meta.safeParse(await answer.json()) : null;
        return found?.success === true && found.data.meta_cluster.cluster_size === 3 && found.data.meta_cluster.leader !== "";
      });
    for (const { httpGet } of [nats.startupProbe, nats.livenessProbe, nats.readinessProbe].filter((probe) => probe !== undefined))
      await until(httpGet.path, async () => (await fetch(`http://127.0.0.1:${ports[2]?.monitor ?? 0}${httpGet.path}`)).ok);
  });

  it("the coordinator comes up on them, which have only just met, at its first start, and answers its probes", async () => {
    const coordinator = container("coordinator");
    const mounts = mountsOf(coordinator);
    for (const mount of mounts) mkdirSync(join(dir.path, "coordinator", mount), { recursive: true });
    cpSync(join(dir.path, "keys/coordinator"), join(dir.path, "coordinator/etc/vibeserve/nats"), { recursive: true });
    let said = "";
    const child = spawn(process.execPath, [MAIN, ...coordinator.args.map((arg) => inside("coordinator", mounts, arg))], {
      env: { PATH: process.env["PATH"], ...environmentOf(coordinator, "coordinator", mounts) },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.push(child);
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
    const probes = [coordinator.startupProbe, coordinator.livenessProbe, coordinator.readinessProbe].filter((probe) => probe !== undefined);
    expect(probes).toHaveLength(3);
    try {
      for (const { httpGet } of probes)
        await until(httpGet.path, async () => {
          if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
          return (await fetch(`http://127.0.0.1:${http}${httpGet.path}`).catch(() => null))?.ok === true;
        });
    } catch (error) {
      expect.fail(`${String(error)}\n${said.slice(-4_000)}`);
    }
    expect(await (await fetch(`http://127.0.0.1:${http}/metrics`)).text()).toContain("vibeserve_");
  });

  const environmentOf = ({ env }: Container, pod: string, mounts: readonly string[]): Record<string, string> =>
    Object.fromEntries([
      ...env.map(({ name, value = "" }): [string, string] => {
        if (name === "VIBESERVE_NATS_URL") return [name, `tls://127.0.0.1:${ports[0]?.client ?? 0}`];
        return [name, name === "VIBESERVE_HTTP" ? `127.0.0.1:${http}` : inside(pod, mounts, value)];
      }),
    ]);

  it.each(["smoke", "upgrade-check"])("%s passes against it", (name) => {
    const one = container(name);
    // The check works on the coordinator's volume.
    const pod = name === "smoke" ? "smoke" : "coordinator";
    // It is told of the folder in which its mount is.
    const mounts = [...mountsOf(one), ...(name === "smoke" ? ["/etc/vibeserve/config"] : [])];
    for (const mount of mounts) mkdirSync(join(dir.path, pod, mount), { recursive: true });
    if (name === "smoke")
      cpSync(join(dir.path, "keys/client/client.json"), join(dir.path, pod, "etc/vibeserve/config/vibeserve/contexts/cluster.json"));
    const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...one.args.map((arg) => inside(pod, mounts, arg))], {
      encoding: "utf8",
      env: { PATH: process.env["PATH"], ...environmentOf(one, pod, mounts) },
      timeout: 120_000,
    });
    expect(status, stdout + stderr).toBe(0);
  });
});
