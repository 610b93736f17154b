import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Machine, machineProblem, type Ran } from "../../kit/machine.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { DEPLOY, writeFakeBundle, type FakeBundle } from "../../deploy/fake-bundle.ts";

const problem = machineProblem("systemd");
if (problem !== null)
  process.stderr.write(`deploy: units are not run by a real systemd: no machine of its own can be made here: ${problem}\n`);

describe.skipIf(problem !== null)("install-agent.sh under a real systemd", () => {
  const dir = tempDir("install-systemd");
  const archives = join(dir.path, "archives");
  mkdirSync(archives);
  const bundle = (version: string, behaviour?: FakeBundle["behaviour"]): string =>
    `/srv/archives/${writeFakeBundle(archives, { version, ...(behaviour ? { behaviour } : {}) })}`;
  const [one, two, dies, broken, refused] = [
    bundle("1.0.0"),
    bundle("2.0.0"),
    bundle("2.0.1", "dies"),
    bundle("2.0.2", "broken"),
    bundle("2.0.3", "refused"),
  ];
  let machine: Machine;
  let before: string[] = [];
  const install = (args: string): Ran => machine.sh(`sh /srv/node/install-agent.sh --settle 1 ${args}`);
  const show = (property: string, unit = "vibeserve-agent"): string => machine.sh(`systemctl show -P ${property} ${unit}`).text.trim();
  const running = (): string => machine.sh("cat /var/lib/vibeserve-agent/running").text.trim();
  beforeAll(async () => {
    machine = await Machine.start("systemd", {
      [archives]: "/srv/archives",
      [join(DEPLOY, "node")]: "/srv/node",
      [join(DEPLOY, "systemd")]: "/srv/systemd",
    });
    machine.sh("echo tls://coordinator:4222#secret >/run/line");
    before = machine.changes();
  });
  afterEach(() => {
    install("--uninstall");
    expect(machine.changes()).toEqual(before);
  });
  afterAll(async () => {
    await machine[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });

  it("starts the service, leaves it alone when nothing is new, and replaces it when there is", () => {
    expect(install(`--bundle ${one} --join-file /run/line`)).toMatchObject({
      code: 0,
      text: expect.stringContaining("installed") as string,
    });
    expect([show("ActiveState"), show("UnitFileState"), show("User"), running()]).toEqual([
      "active",
      "enabled",
      "vibeserve-agent",
      "1.0.0",
    ]);
    const pid = show("MainPID");
    expect(install(`--bundle ${one} --join-file /run/line`).text).toContain("unchanged");
    expect(show("MainPID")).toBe(pid);
    machine.sh(
      "mkdir -p /etc/systemd/system/vibeserve-agent.service.d; printf '[Service]\\nNice=5\\n' >/etc/systemd/system/vibeserve-agent.service.d/mine.conf",
    );
    expect(install(`--bundle ${two}`)).toMatchObject({ code: 0, text: expect.stringContaining("upgraded") as string });
    expect([show("ActiveState"), show("Nice"), running()]).toEqual(["active", "5", "2.0.0"]);
    expect(machine.sh("ls /opt | grep vibeserve").text).toBe("vibeserve\n");
    expect(install("--uninstall").code).toBe(0);
    expect(machine.sh("systemctl cat vibeserve-agent; id vibeserve-agent").text).toMatch(/No files found[^]*no such user/);
  });

  it("does not touch the version that runs when the new one can't even describe the machine", () => {
    install(`--bundle ${one} --join-file /run/line`);
    const pid = show("MainPID");
    expect(install(`--bundle ${broken}`)).toMatchObject({ code: 1, text: expect.stringContaining("this version is broken") as string });
    expect([show("MainPID"), show("ActiveState")]).toEqual([pid, "active"]);
  });

  it("goes back to the old version, its unit and its line, when the new one does not stay up", () => {
    install(`--bundle ${one} --join-file /run/line`);
    const was = machine.changes().filter((line) => !/running|\.timer|INSTALLED/.test(line));
    machine.sh("echo tls://coordinator:4222#other >/run/other");
    expect(install(`--bundle ${dies} --join-file /run/other`)).toMatchObject({
      code: 1,
      text: expect.stringMatching(/this version dies[^]*putting back/) as string,
    });
    expect([show("ActiveState"), running()]).toEqual(["active", "1.0.0"]);
    expect(machine.changes().filter((line) => !/running|\.timer|INSTALLED/.test(line))).toEqual(was);
    expect(install(`--bundle ${two}`).code).toBe(0);
  });

  it("goes back to the old version when any step of an upgrade fails, and when it is told to stop in the middle", () => {
    install(`--bundle ${one} --join-file /run/line`);
    for (const tool of ["mv", "cp", "systemctl"]) {
      using stub = machine.failing(tool);
      for (let nth = 1; nth < 12; nth++) {
        const tried = stub.run(nth, `sh /srv/node/install-agent.sh --settle 1 --bundle ${two}`);
        if (tried.code === 0) {
          // That call's failure mattered to nothing, or there was no such call.
          install(`--bundle ${one}`);
          if (!tried.reached) break;
        }
        expect([show("ActiveState"), running()], `${tool}, call ${nth}: ${tried.text}`).toEqual(["active", "1.0.0"]);
        expect(machine.sh("ls /opt | grep vibeserve").text).toBe("vibeserve\n");
      }
    }
    const stopped = machine.sh(
      `sh /srv/node/install-agent.sh --settle 60 --bundle ${two} & p=$!; until [ -e /opt/vibeserve.old ]; do :; done; kill -TERM $p; wait $p; echo code $?`,
    );
    expect(stopped.text).toContain("code 143");
    expect([show("ActiveState"), running()]).toEqual(["active", "1.0.0"]);
  });

  it("leaves nothing of an agent that the coordinator refuses, which its unit does not start again", () => {
    const tried = install(`--bundle ${refused} --join-file /run/line`);
    expect(tried).toMatchObject({ code: 1, text: expect.stringContaining("did not stay up") as string });
    expect(machine.changes()).toEqual(before);
    install(`--bundle ${one} --join-file /run/line`);
    machine.sh("printf '#!/bin/sh\\nexit 77\\n' >/opt/vibeserve/bin/gpu-agent; systemctl restart vibeserve-agent; sleep 6");
    expect([show("ActiveState"), show("ExecMainStatus"), show("NRestarts")]).toEqual(["failed", "77", "0"]);
  });

  it("waits for a line before it starts an agent that belongs nowhere, and adds what GPUs need where they are", () => {
    machine.sh("touch /dev/nvidiactl /dev/kfd");
    expect(install(`--bundle ${one}`).text).toContain("run this again with --join-file");
    expect([show("ActiveState"), show("UnitFileState")]).toEqual(["inactive", "enabled"]);
    expect(install(`--bundle ${one} --join-file /run/line`).code).toBe(0);
    expect(machine.sh("ls /etc/systemd/system/vibeserve-agent.service.d").text).toBe("amd.conf\nnvidia.conf\n");
    expect([show("ActiveState"), show("PrivateDevices")]).toEqual(["active", "no"]);
    expect(show("DeviceAllow")).toMatch(/char-nvidia-uvm rw[^]*\/dev\/kfd rw|\/dev\/kfd rw[^]*char-nvidia-uvm rw/);
    machine.sh("rm /dev/nvidiactl /dev/kfd");
  });

  it("installs a coordinator, beside which an agent has a prefix of its own", () => {
    expect(install(`--role coordinator --bundle ${one}`).code).toBe(0);
    expect([show("ActiveState", "vibeserve-coordinator"), show("User", "vibeserve-coordinator")]).toEqual(["active", "vibeserve"]);
    expect(install(`--bundle ${one} --join-file /run/line`).text).toContain("give the agent another --prefix");
    expect(install(`--bundle ${one} --join-file /run/line --prefix /opt/vibeserve-agent`).code).toBe(0);
    expect(show("ActiveState")).toBe("active");
    expect(install("--uninstall").text).toContain("say --role coordinator");
    expect(install("--uninstall --prefix /opt/vibeserve-agent").code).toBe(0);
    expect(show("ActiveState", "vibeserve-coordinator")).toBe("active");
    expect(install("--uninstall --role coordinator").code).toBe(0);
  });

  it("has users and folders for packages that install files alone", () => {
    const made = machine.sh(
      "set -e; echo line >/run/l; systemd-sysusers /srv/systemd/vibeserve.sysusers.conf; systemd-tmpfiles --create /srv/systemd/vibeserve.tmpfiles.conf; id -un vibeserve vibeserve-agent; stat -c '%U:%G %a' /etc/vibeserve/join",
    );
    expect(made.text).toContain("vibeserve\nvibeserve-agent\nroot:vibeserve-agent 750\n");
    machine.sh("userdel vibeserve; userdel vibeserve-agent; rm -rf /etc/vibeserve");
  });
});
