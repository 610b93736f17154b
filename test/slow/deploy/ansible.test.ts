import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { DEPLOY, writeFakeBundle } from "../../deploy/fake-bundle.ts";
import { Machine, machineProblem, type Ran } from "../../kit/machine.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { cacheDir } from "../../kit/weights.ts";

/** `pip install --target` of ansible-core; .ci/run makes it. */
const ANSIBLE = join(cacheDir(), "test-ansible");
/** The Python whose pip it was; the machine's root is this one's too. */
const PYTHON = spawnSync("python3", ["-c", "import sys; print(sys.executable)"], { encoding: "utf8" }).stdout.trim();
const problem = existsSync(join(ANSIBLE, "bin/ansible-playbook")) ? machineProblem("systemd") : `there is no ansible-core at ${ANSIBLE}`;
if (problem !== null) process.stderr.write(`deploy: the Ansible role is not applied: ${problem}\n`);

describe.skipIf(problem !== null)("the Ansible role, applied to a machine of its own under a real systemd", () => {
  const dir = tempDir("ansible");
  const archives = join(dir.path, "archives");
  mkdirSync(archives);
  const [one, two] = [writeFakeBundle(archives, { version: "1.0.0" }), writeFakeBundle(archives, { version: "2.0.0" })];
  let machine: Machine;
  let before: string[] = [];
  /** ok, changed and failed of the recap, with all that was printed. */
  const play = (variables: Record<string, unknown>): Ran & { changed: number; failed: number } => {
    const given = {
      vibeserve_agent_bundle_dir: "/srv/site/archives",
      vibeserve_agent_join_line: "tls://coordinator:4222#secret",
      ...variables,
    };
    const host = { ansible_connection: "local", ansible_python_interpreter: "{{ ansible_playbook_python }}", ...given };
    writeFileSync(join(dir.path, "inventory.yml"), stringify({ vibeserve_agents: { hosts: { node: host } } }));
    const ran = machine.sh(
      `cd /srv/deploy/ansible && ANSIBLE_LOCALHOST_WARNING=0 ANSIBLE_NOCOLOR=1 PYTHONPATH=/srv/ansible LC_ALL=C.UTF-8 ${PYTHON} /srv/ansible/bin/ansible-playbook -v -i /srv/site/inventory.yml agents.yml`,
    );
    const count = (name: string): number => Number(new RegExp(`${name}=(\\d+)`).exec(ran.text)?.[1] ?? NaN);
    return { ...ran, changed: count("changed"), failed: count("failed") };
  };
  const running = (): string => machine.sh("systemctl is-active vibeserve-agent; cat /var/lib/vibeserve-agent/running").text;
  beforeAll(async () => {
    machine = await Machine.start("systemd", { [dir.path]: "/srv/site", [DEPLOY]: "/srv/deploy", [ANSIBLE]: "/srv/ansible" });
    before = machine.changes();
  });
  afterAll(async () => {
    await machine[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });

  it("installs, changes nothing the second time, restarts for new settings, upgrades, and removes all of it", () => {
    const first = play({ vibeserve_agent_archives: [one], vibeserve_agent_environment: { VIBESERVE_AGENT_POOL: "p" } });
    expect(first.text).not.toContain("#secret");
    expect([first.code, first.failed], first.text).toEqual([0, 0]);
    expect(first.changed).toBeGreaterThan(0);
    expect(running()).toBe("active\n1.0.0\n");
    expect(machine.sh("tail -1 /etc/vibeserve/agent.env; cat /etc/vibeserve/join/line").text).toBe(
      "VIBESERVE_AGENT_POOL=p\ntls://coordinator:4222#secret\n",
    );
    const again = play({ vibeserve_agent_archives: [one], vibeserve_agent_environment: { VIBESERVE_AGENT_POOL: "p" } });
    expect([again.code, again.changed], again.text).toEqual([0, 0]);
    const pid = machine.sh("systemctl show -P MainPID vibeserve-agent").text;
    const other = play({ vibeserve_agent_archives: [one], vibeserve_agent_environment: { VIBESERVE_AGENT_POOL: "q" } });
    expect(other.code, other.text).toBe(0);
    expect(machine.sh("systemctl show -P MainPID vibeserve-agent").text).not.toBe(pid);
    expect(play({ vibeserve_agent_archives: [two], vibeserve_agent_join_line: "" }).code).toBe(0);
    expect(running()).toBe("active\n2.0.0\n");
    expect(play({ vibeserve_agent_archives: [] }).text).toContain("vibeserve_agent_archives is empty");
    const removed = play({ vibeserve_agent_state: "absent" });
    expect([removed.code, removed.changed], removed.text).toEqual([0, 1]);
    expect(machine.changes()).toEqual(before);
    expect(play({ vibeserve_agent_state: "absent" }).changed).toBe(0);
  });
});
