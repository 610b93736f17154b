import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { makeAuthority, makeCertificate } from "../../coordinator/src/broker/own-authority.ts";
import { containerOf, helm, natsConf, render } from "../kit/chart.ts";
import { freePorts } from "../kit/free-ports.ts";
import { natsServer } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";

/** The pod's folders under `dir`: keys as a Secret would bring them, but for accounts, of which there are none. */
async function layOut(dir: string, conf: string): Promise<void> {
  for (const folder of ["etc/nats/keys", "data", "var/run/nats"]) mkdirSync(join(dir, folder), { recursive: true });
  const authority = await makeAuthority();
  const pem = await makeCertificate(authority, ["localhost"]);
  const at = pem.indexOf("-----BEGIN CERTIFICATE-----");
  const files = {
    "tls.key": pem.slice(0, at),
    "tls.crt": pem.slice(at),
    "ca.crt": authority.slice(authority.indexOf("-----BEGIN CERTIFICATE-----")),
    "auth.conf": "",
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, "etc/nats/keys", name), text);
  writeFileSync(join(dir, "etc/nats/nats.conf"), inside(dir, conf));
}
const inside = (dir: string, text: string): string =>
  text.replaceAll(/(\/etc\/nats|\/data|\/var\/run\/nats)\b/g, (path) => join(dir, path));

describe.skipIf(helm === null)("the chart's NATS (skipped without helm)", () => {
  it.each(["1", "3", "5"])("has a configuration that nats-server takes, with %s servers", async (replicas) => {
    using dir = tempDir("chart-nats");
    await layOut(dir.path, natsConf(render({ set: [`nats.replicas=${replicas}`] })));
    const { status, stderr } = spawnSync(natsServer, ["-t", ...containerOf(render(), "nats").args.map((arg) => inside(dir.path, arg))], {
      encoding: "utf8",
      env: { POD_NAME: "vs-vibeserve-nats-0" },
    });
    expect(stderr).toContain("is valid");
    expect(status).toBe(0);
  });

  it("answers its probes, syncs always, and its preStop hook ends it in lame duck mode", async () => {
    using dir = tempDir("chart-nats");
    const objects = render({ preset: "small" });
    const container = containerOf(objects, "nats");
    const [port = 0, http = 0] = await freePorts(2);
    const conf = natsConf(objects)
      .replace("port: 4222", `port: ${port}`)
      .replace("0.0.0.0:8222", `127.0.0.1:${http}`)
      .replace("host: 0.0.0.0", "host: 127.0.0.1");
    await layOut(dir.path, conf);
    const server = spawn(
      natsServer,
      container.args.map((arg) => inside(dir.path, arg)),
      { env: { POD_NAME: "vs-vibeserve-nats-0" } },
    );
    const log: string[] = [];
    server.stderr.on("data", (chunk: Buffer) => log.push(chunk.toString()));
    const ended = once(server, "exit");
    try {
      const get = async (path: string): Promise<Response> => fetch(`http://127.0.0.1:${http}${path}`);
      const signal = AbortSignal.timeout(20_000);
      while (!(await get("/healthz").catch(() => null))?.ok) await sleep(100, undefined, { signal });
      for (const probe of [container.startupProbe, container.livenessProbe, container.readinessProbe])
        expect((await get(probe?.httpGet.path ?? "/none")).status, probe?.httpGet.path).toBe(200);
      const varz = z.looseObject({
        server_name: z.string(),
        jetstream: z.looseObject({ config: z.looseObject({ sync_always: z.boolean().optional() }) }),
      });
      expect(varz.parse(await (await get("/varz")).json())).toMatchObject({
        server_name: "vs-vibeserve-nats-0",
        tls_required: true,
        jetstream: { config: { sync_always: true } },
      });
      const { command } = z
        .looseObject({ preStop: z.looseObject({ exec: z.looseObject({ command: z.array(z.string()) }) }) })
        .parse(container["lifecycle"]).preStop.exec;
      expect(command[0]).toBe("nats-server");
      expect(
        spawnSync(
          natsServer,
          command.slice(1).map((arg) => inside(dir.path, arg)),
        ).status,
      ).toBe(0);
      expect(await ended, log.join("")).toEqual([0, null]);
      expect(log.join("")).toContain("lame duck");
    } finally {
      server.kill("SIGKILL");
    }
  });
});
