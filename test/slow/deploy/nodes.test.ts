import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AgentRow } from "@vibeserve/shared";
import { DEPLOY } from "../../deploy/fake-bundle.ts";
import { Machine, machineProblem, type Ran } from "../../kit/machine.ts";
import { tempDir } from "../../kit/temp-dir.ts";

const MAIN = join(import.meta.dirname, "../../../coordinator/src/main.ts");
const problem = machineProblem("systemd");
if (problem !== null) process.stderr.write(`deploy: no node is installed from a real bundle: ${problem}\n`);

describe.skipIf(problem !== null)("a machine without network or Node, with an offline bundle and a real systemd", () => {
  const dir = tempDir("nodes");
  const archives = join(dir.path, "archives");
  mkdirSync(archives);
  let machine: Machine;
  let before: string[] = [];
  let core = "";
  const changes = (): string[] => machine.changes("var/mail", "var/spool", "home");
  const install = (args: string): Ran => machine.sh(`sh /srv/deploy/node/install-agent.sh --settle 3 ${args}`);
  const as = (user: string, command: string): string => `setpriv --reuid=${user} --regid=${user} --clear-groups env ${command}`;
  const vibeserve = (args: string): Ran =>
    machine.sh(
      as(
        "vibeserve",
        `HOME=/var/lib/vibeserve VIBESERVE_CACHE=/var/cache/vibeserve /opt/vibeserve/bin/vibeserve ${args} --data /var/lib/vibeserve`,
      ),
    );
  const agents = (): string[] => {
    const { code, text } = vibeserve("agents --json");
    return code === 0 ? (JSON.parse(text) as { agents: AgentRow[] }).agents.map((a) => `${a.agentId} ${a.state}`).sort() : [text];
  };
  const line = (): string => vibeserve("agents token --labels vibeserve.dev/sandbox=bubblewrap --json").text;
  const wait = { timeout: 60_000, interval: 500 };
  const show = (property: string): string => machine.sh(`systemctl show -P ${property} vibeserve-agent`).text.trim();

  beforeAll(async () => {
    const built = spawnSync(process.execPath, [MAIN, "bundle", "--out", archives, "--data", join(dir.path, "data")], { encoding: "utf8" });
    expect(built.status, built.stderr).toBe(0);
    core = `/srv/archives/${readdirSync(archives).find((name) => name.endsWith("-core.tar.gz")) ?? "none"}`;
    machine = await Machine.start("systemd", { [archives]: "/srv/archives", [DEPLOY]: "/srv/deploy" });
    before = changes();
  });
  afterAll(async () => {
    await machine[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });

  it("runs coordinator and agent from their hardened units, and the agent has its sandbox there", async () => {
    expect(install(`--role coordinator --bundle ${core}`)).toMatchObject({ code: 0 });
    // The label lets in only an agent that says so, after trying.
    machine.sh(
      `echo '${vibeserve("agents token --labels vibeserve.dev/sandbox=bubblewrap").text.trim().replaceAll("'", "'\\''")}' >/run/line`,
    );
    const installed = install(`--prefix /opt/vibeserve-agent --bundle ${core} --join-file /run/line`);
    expect(installed.code, installed.text).toBe(0);
    await expect.poll(agents, wait).toEqual([expect.stringMatching(/ ready$/)]);
    expect(machine.sh("journalctl -u vibeserve-agent -o cat").text).toContain('"sandbox":"bubblewrap"');
  });

  it("builds and checks the seed of a campaign there", async ({ skip }) => {
    if (machine.sh("command -v c++ g++ clang++").text === "") skip("this machine has no C++ compiler");
    const made = vibeserve("checkpoint");
    expect(made.code, made.text).toBe(0);
    machine.sh(
      "mkdir -p /var/cache/vibeserve-agent/weights; cp /var/cache/vibeserve/weights/* /var/cache/vibeserve-agent/weights/; chown -R vibeserve-agent: /var/cache/vibeserve-agent",
    );
    const sent = vibeserve("submit /var/lib/vibeserve/random-llama-1.yaml --budget 100s");
    expect(sent.code, sent.text).toBe(0);
    const watched = vibeserve("watch");
    expect(watched.text).toContain("seed check passed");
    await expect.poll(agents, wait).toEqual([expect.stringMatching(/ ready$/)]);
  }, 300_000);

  it("comes back by itself after a kill, and stays away when it is revoked", async () => {
    const pid = show("MainPID");
    machine.sh(`kill -9 ${pid}`);
    await expect.poll(() => show("MainPID"), wait).not.toMatch(new RegExp(`^(0|${pid})$`));
    await expect.poll(agents, wait).toEqual([expect.stringMatching(/ ready$/)]);
    const id = agents()[0]?.split(" ")[0] ?? "";
    expect(vibeserve(`agents revoke ${id} --reason stolen`).code).toBe(0);
    await expect.poll(() => show("ActiveState"), wait).toBe("failed");
    expect(show("ExecMainStatus")).toBe("77");
    expect(install(`--uninstall --prefix /opt/vibeserve-agent`).code).toBe(0);
  });

  it("takes an agent in that runs as a Slurm job would: without root, drained, requeued, refused beside itself", async () => {
    const home = "/home/someone";
    machine.sh(
      `useradd --create-home --home-dir ${home} someone; mkdir -p ${home}/.vibeserve/slurm/1; tar -xzf ${core} -C ${home}; mv ${home}/vibeserve-* ${home}/vibeserve`,
    );
    const given = JSON.parse(line()) as { line: string };
    machine.sh(`echo '${given.line}' >${home}/.vibeserve/slurm/1/line; chown -R someone: ${home}; chmod 700 ${home}/.vibeserve`);
    machine.sh("printf '#!/bin/sh\\necho \"$*\" >>/tmp/scontrol\\n' >/usr/local/bin/scontrol; chmod +x /usr/local/bin/scontrol");
    const slurm = (job: number): string =>
      as(
        "someone",
        `HOME=${home} SLURM_JOB_ID=${job} SLURM_ARRAY_JOB_ID=${job} SLURM_ARRAY_TASK_ID=1 VIBESERVE_REQUEUE=1 bash /srv/deploy/slurm/agent.sbatch`,
      );
    const start = (job: number): Ran => machine.sh(`${slurm(job)} </dev/null >/tmp/${job}.log 2>&1 & echo $! >/tmp/${job}.pid`);
    const end = (job: number): Ran =>
      machine.sh(`pid=$(cat /tmp/${job}.pid); kill -TERM $pid; while kill -0 $pid 2>/dev/null; do sleep 0.1; done; cat /tmp/${job}.log`);
    start(7);
    await expect.poll(agents, wait).toContain("slurm-someone-1 ready");
    expect(machine.sh(slurm(8))).toMatchObject({ code: 2, text: expect.stringContaining("runs in another job already") as string });
    expect(machine.sh("ls -d /tmp/vibeserve-7-1").code).toBe(0);
    expect(end(7).text).toContain("ended with 0");
    expect(machine.sh("ls -d /tmp/vibeserve-7-1").code).toBe(2);
    expect(machine.sh("cat /tmp/scontrol").text).toBe("requeue 7_1\n");
    start(9);
    await expect.poll(() => machine.sh("cat /tmp/9.log").text, wait).toContain("taking jobs");
    await expect.poll(agents, wait).toContain("slurm-someone-1 ready");
    expect(vibeserve("agents revoke slurm-someone-1").code).toBe(0);
    await expect.poll(() => machine.sh("cat /tmp/9.log").text, wait).toContain("ended with 77");
    machine.sh("userdel --remove someone; rm /usr/local/bin/scontrol");
  });

  it("has nothing of it left when all is removed", () => {
    expect(install("--uninstall --role coordinator").code).toBe(0);
    expect(changes()).toEqual(before);
  });
});
