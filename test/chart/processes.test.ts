import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { loadSettings } from "../../coordinator/src/config.ts";
import { readConfig } from "../../gpu-agent/src/config.ts";
import { containersOf, idOf, helm, PRESETS, render, workloadsOf, type Container, type Workload } from "../kit/chart.ts";
import { tempDir } from "../kit/temp-dir.ts";

const node = tempDir("chart-node");
afterAll(() => node[Symbol.dispose]());
const ROOT = join(import.meta.dirname, "../..");
const LINE = `tls://vs-vibeserve-nats.vibe.svc:4222#`;

const workloads =
  helm === null
    ? []
    : [...PRESETS.map((preset) => ({ preset })), { set: ["builders.enabled=true", "llm.existingSecret=llm"] }].flatMap((o) =>
        workloadsOf(render(o)),
      );
const containers = workloads.flatMap((workload) => containersOf(workload).map((container) => ({ workload, container })));
const running = (command: string) => containers.filter(({ container }) => container.command[0] === `/opt/vibeserve/bin/${command}`);
const name = ({ workload, container }: { workload: Workload; container: Container }): string =>
  `${idOf(workload.object)} ${container.args.join(" ").slice(0, 40)}`;

/** What an env variable of the pod holds once the kubelet has filled it in. */
const environmentOf = ({ env }: Container): Record<string, string> =>
  Object.fromEntries(env.map((variable) => [variable.name, variable.value ?? "vs-vibeserve-pod-x7k2p"]));

const cli = (...args: string[]): string => {
  const { stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: ROOT,
    encoding: "utf8",
    env: { PATH: process.env["PATH"], HOME: node.path },
  });
  return stdout + stderr;
};
const agentHelp = cli("gpu-agent/src/main.ts", "--help");

describe.skipIf(helm === null)("processes of the chart's pods (skipped without helm)", () => {
  it("find every file and folder that they are told of on a volume, and write only where one can", () => {
    expect(containers.length).toBeGreaterThan(20);
    // The hook tells of a folder of the servers.
    for (const { workload, container } of containers.filter((one) => one.container.name !== "keys")) {
      const told = [...container.args, ...Object.values(environmentOf(container))].filter((text) => /^\/(?!node|profile)/.test(text));
      for (const path of told) {
        const [mount] = container.volumeMounts.filter(
          (m) => path === m.mountPath || path.startsWith(`${m.mountPath}/`) || m.mountPath.startsWith(`${path}/`),
        );
        expect(mount, `${idOf(workload.object)}: ${path}`).toBeDefined();
        if (/lib|cache|tmp/.test(path)) expect(mount?.readOnly, path).toBe(false);
      }
    }
  });

  it.each(running("gpu-agent").map((one) => ({ one, is: name(one) })))(
    "an agent understands its command line and environment: $is",
    ({ one }) => {
      const { container } = one;
      const at = (path: string): string =>
        container.volumeMounts.some((m) => path.startsWith(m.mountPath)) ? join(node.path, path) : path;
      const file = at("/etc/vibeserve/join/line");
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, `${LINE}\n`);
      const env = Object.fromEntries(Object.entries(environmentOf(container)).map(([key, value]) => [key, at(value)]));
      const args = container.args.map(at);
      // A line that is no line is refused as such: so everything before it was understood.
      expect(() => readConfig(args, env)).toThrow(/^gpu-agent: join: not a join line/);
      const { config } = readConfig(
        args.filter((_, i) => !/--join-file/.test(`${args[i - 1] ?? ""} ${args[i] ?? ""}`)),
        env,
      );
      expect(config).toMatchObject({ agentId: "vs-vibeserve-pod-x7k2p", drainMs: 120_000, builderOnly: container.name === "builder" });
      expect(config.serviceAccountToken).toBe(at("/var/run/secrets/vibeserve/token"));
      for (const variable of Object.keys(env).filter((key) => key.startsWith("VIBESERVE_AGENT_"))) {
        const option = variable.replace("VIBESERVE_AGENT_", "--").toLowerCase().replaceAll("_", "-");
        expect(agentHelp, variable).toContain(`  ${option} `);
      }
    },
  );

  it.each(["up", "keys", "smoke", "upgrade"])("the coordinator's command knows verb %s and the options that pods give it", (verb) => {
    const using = running("vibeserve").filter(({ container }) => container.args[0] === verb);
    expect(using.length).toBeGreaterThan(0);
    const help = cli("coordinator/src/main.ts", verb, "--help");
    for (const { container } of using)
      for (const option of container.args.filter((arg) => arg.startsWith("--")))
        expect(help, option).toMatch(new RegExp(`^ +${option}\\b`, "m"));
  });

  it("the coordinator's settings are understood, and each is one that something reads", () => {
    const [coordinator] = running("vibeserve").filter(({ container }) =>
      container.env.some((variable) => variable.name === "ANTHROPIC_API_KEY_FILE"),
    );
    const key = join(node.path, "llm-key");
    writeFileSync(key, "sk-test\n");
    const env = { ...environmentOf(coordinator?.container ?? expect.fail("no coordinator has a key")), ANTHROPIC_API_KEY_FILE: key };
    const settings = loadSettings({ data: "/var/lib/vibeserve" }, env);
    expect(settings.anthropic.apiKey).toBe("sk-test");
    // What `kubectl logs` shows.
    expect(settings.logStdout).toBe(true);
    expect(settings.kubernetes).toEqual({
      issuer: "https://kubernetes.default.svc.cluster.local",
      audience: "vibeserve",
      accounts: ["vibe:vs-vibeserve-agent", "vibe:vs-vibeserve-builder"],
      caFile: "/var/run/secrets/vibeserve-api/ca.crt",
      tokenFile: "/var/run/secrets/vibeserve-api/token",
    });
    const source = readFileSync(join(ROOT, "coordinator/src/config.ts"), "utf8");
    const unread = Object.keys(env).filter((variable) => /^VIBESERVE_/.test(variable) && !source.includes(`"${variable}"`));
    expect(unread).toEqual([]);
  });

  it("a number of a values file is a number in the environment", () => {
    const places = ["coordinator.env.VIBESERVE_X", "agents.classes.cpu.env.VIBESERVE_AGENT_X", "weights.fetch.env.HF_X"];
    const json = places.flatMap((place) => [`${place}=10000000`, `${place}_HALF=0.5`, `${place}_YES=true`, `${place}_TEXT="1e3"`]);
    const fetched = [`weights.existingClaim="w"`, `weights.fetch.models=[{"repository":"a/b","revision":"${"a".repeat(40)}","name":"b"}]`];
    const containers = workloadsOf(render({ json: [...json, ...fetched] })).flatMap(({ pod }) => pod.containers);
    const told = containers.flatMap(({ env }) => env).filter(({ name }) => /^(VIBESERVE|VIBESERVE_AGENT|HF)_X(_|$)/.test(name));
    expect([...new Set(told.map(({ name, value }) => `${name}=${value ?? ""}`))].sort()).toEqual(
      ["HF_X", "VIBESERVE_AGENT_X", "VIBESERVE_X"].flatMap((name) => [
        `${name}=10000000`,
        `${name}_HALF=0.5`,
        `${name}_TEXT=1e3`,
        `${name}_YES=true`,
      ]),
    );
  });

  it("a key's file that can't be read is named", () => {
    expect(() => loadSettings({}, { OPENAI_API_KEY_FILE: join(node.path, "absent") })).toThrow(/^environment: OPENAI_API_KEY_FILE: ENOENT/);
  });
});
