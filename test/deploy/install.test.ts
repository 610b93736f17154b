import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Machine, machineProblem, type Ran } from "../kit/machine.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { DEPLOY, hostPlatform, sha256, writeFakeBundle, type FakeBundle } from "./fake-bundle.ts";

const dir = tempDir("install");
const archives = join(dir.path, "archives");
mkdirSync(archives);
const bundle = (of: FakeBundle): string => `/srv/archives/${writeFakeBundle(archives, of)}`;
const SCRIPT = "/srv/node/install-agent.sh";
const binds = { [archives]: "/srv/archives", [join(DEPLOY, "node")]: "/srv/node" };
afterAll(() => dir[Symbol.dispose]());

const problem = machineProblem("none");
if (problem !== null) process.stderr.write(`install: install-agent.sh is not run: no machine of its own can be made here: ${problem}\n`);

const shells = [["/bin/sh"], ["/usr/bin/dash"], ["/usr/bin/bash"], ["/usr/bin/busybox", "sh"]];

/** Machines without a service manager: everything but starting and stopping. */
describe.skipIf(problem !== null)("install-agent.sh", () => {
  let machine: Machine;
  let good = "";
  let before: string[] = [];
  /** The folder /opt itself may stay. */
  const changes = (): string[] => machine.changes().filter((line) => !line.includes(" /run/upper/opt "));
  const install = (args: string, shell = "sh"): Ran => machine.sh(`${shell} ${SCRIPT} ${args}`);
  beforeAll(async () => {
    good = bundle({ version: "1.0.0", weights: { "small.gguf": "weights" } });
    machine = await Machine.start("none", binds);
    before = changes();
  });
  afterEach(() => {
    install("--uninstall");
    machine.sh("rm -rf /srv/line");
  });
  afterAll(async () => machine[Symbol.asyncDispose]());

  for (const shell of shells)
    it(`installs for its own user what that user can't change, and leaves nothing when it is removed (${shell.join(" ")})`, ({ skip }) => {
      if (machine.sh(`command -v ${shell[0]}`).code !== 0) skip(`there is no ${shell[0]}`);
      machine.sh(
        "echo tls://coordinator:4222#secret >/srv/line; mkdir -p /etc/vibeserve; echo VIBESERVE_AGENT_POOL=p >/etc/vibeserve/agent.env",
      );
      const users = machine.sh("cat /etc/passwd /etc/group").text;
      const done = install(`--bundle ${good} --join-file /srv/line`, shell.join(" "));
      expect(done).toMatchObject({
        code: 0,
        text: expect.stringMatching(/installed: \/opt\/vibeserve[^]*next: run as vibeserve-agent/) as string,
      });
      expect(machine.sh("find /opt/vibeserve ! -user root -o -perm /022 ! -type l").text).toBe("");
      expect(machine.sh("stat -c '%U:%G %a' /etc/vibeserve/join/line /var/lib/vibeserve-agent").text).toBe(
        "root:vibeserve-agent 640\nvibeserve-agent:vibeserve-agent 700\n",
      );
      expect(machine.sh("cat /var/cache/vibeserve-agent/weights/small.gguf").text).toBe("weights");
      expect(
        machine.sh("setpriv --reuid=vibeserve-agent --regid=vibeserve-agent --clear-groups touch /opt/vibeserve/bin/gpu-agent").code,
      ).toBe(1);
      expect(install(`--bundle ${good} --join-file /srv/line`, shell.join(" ")).text).toContain("unchanged");
      expect(install("--uninstall", shell.join(" "))).toMatchObject({ code: 0, text: expect.stringContaining("agents revoke") as string });
      expect(machine.sh("cat /etc/passwd /etc/group").text).toBe(users);
      machine.sh("rm /srv/line");
      expect(changes()).toEqual(before);
      expect(install("--uninstall", shell.join(" "))).toMatchObject({
        code: 0,
        text: expect.stringContaining("there is nothing") as string,
      });
    });

  it("refuses an archive whose digest is another, names both, and unpacks nothing", () => {
    const name = writeFakeBundle(archives, { version: "1.0.1" });
    const found = sha256(join(archives, name));
    const expected = found.replace(/^./, (c) => (c === "0" ? "1" : "0"));
    writeFileSync(join(archives, `${name}.sha256`), `${expected}  ${name}\n`);
    const refused = install(`--bundle /srv/archives/${name}`);
    expect(refused.code).toBe(1);
    expect(refused.text).toContain(found);
    expect(refused.text).toContain(expected);
    writeFileSync(join(archives, `${name}.sha256`), "");
    expect(install(`--bundle /srv/archives/${name}`)).toMatchObject({ code: 2, text: expect.stringContaining("not a sha256") as string });
    copyFileSync(join(archives, name), join(archives, "alone.tar.gz"));
    expect(install("--bundle /srv/archives/alone.tar.gz")).toMatchObject({
      code: 2,
      text: expect.stringContaining("alone.tar.gz.sha256") as string,
    });
    expect(changes()).toEqual(before);
  });

  it("refuses a bundle of another platform, one that writes outside its folder, and one whose agent does not start", () => {
    const other = hostPlatform() === "linux-arm64" ? "linux-x64" : "linux-arm64";
    expect(install(`--bundle ${bundle({ version: "1.0.2", platform: other })}`).text).toContain(
      `for ${other}, and this machine is ${hostPlatform()}`,
    );
    for (const path of ["../evil", "/srv/evil", "vibeserve-1.0.3/../../evil", "other/file"])
      expect(install(`--bundle ${bundle({ version: "1.0.3", strays: { [path]: "evil" } })}`)).toMatchObject({
        code: 1,
        text: expect.stringContaining("outside") as string,
      });
    const broken = install(`--bundle ${bundle({ version: "1.0.4", behaviour: "broken" })}`);
    expect(broken).toMatchObject({ code: 1, text: expect.stringContaining("this version is broken") as string });
    expect(changes()).toEqual(before);
  });

  it("is not run from a pipe, nor by anyone but root, nor into a folder that is not its own", () => {
    expect(machine.sh(`cat ${SCRIPT} | sh -s -- --bundle ${good}`)).toMatchObject({
      code: 2,
      text: expect.stringContaining("not from a pipe") as string,
    });
    expect(machine.sh(`setpriv --reuid=65534 --regid=65534 --clear-groups sh ${SCRIPT} --bundle ${good}`).text).toContain("only root");
    machine.sh("mkdir -p /opt/mine");
    expect(install(`--bundle ${good} --prefix /opt/mine`).text).toContain("not made by this script");
    expect(install("--uninstall --prefix /opt/mine").text).toContain("nothing was removed");
    expect(machine.sh("rmdir /opt/mine").code).toBe(0);
    for (const prefix of ["/opt", "relative/path", "/opt/a b", "/opt/../etc", "'/opt/$(id)'"])
      expect(install(`--bundle ${good} --prefix ${prefix}`).code).toBe(2);
  });

  it("writes nothing where a link of the agent's own leads", () => {
    install(`--bundle ${good}`);
    machine.sh("cd /var/cache/vibeserve-agent && rm -r weights && ln -s /etc weights");
    const upgrade = install(`--bundle ${bundle({ version: "1.0.5", weights: { "other.gguf": "weights" } })}`);
    expect(upgrade.code, upgrade.text).toBe(1);
    expect(machine.sh("ls /etc/other.gguf /etc/.draft").code).toBe(2);
    expect(machine.sh("cat /opt/vibeserve/bin/gpu-agent").text).toContain("1.0.0");
  });

  it("with --keep-data leaves key, line, cache and user, which the next installation finds", () => {
    machine.sh("echo tls://coordinator:4222#secret >/srv/line");
    install(`--bundle ${good} --join-file /srv/line`);
    machine.sh("echo key >/var/lib/vibeserve-agent/agent.nk");
    expect(install("--uninstall --keep-data").text).toContain("kept: /var/lib/vibeserve-agent");
    expect(machine.sh("ls /opt/vibeserve").code).toBe(2);
    expect(machine.sh("cat /var/lib/vibeserve-agent/agent.nk /etc/vibeserve/join/line; id -un vibeserve-agent").text).toBe(
      "key\ntls://coordinator:4222#secret\nvibeserve-agent\n",
    );
    expect(install(`--bundle ${good}`).code).toBe(0);
  });

  // Each program that it calls fails once, at its first, second, … call, until an installation gets through.
  for (const tool of ["cp", "tar", "chown", "chmod", "mkdir", "mv", "useradd", "sed"])
    it(`puts everything back when ${tool} fails, whenever that is`, () => {
      machine.sh("echo tls://coordinator:4222#secret >/tmp/line");
      using stub = machine.failing(tool);
      let failed = 0;
      for (let nth = 1; nth < 40; nth++) {
        const tried = stub.run(nth, `sh ${SCRIPT} --bundle ${good} --join-file /tmp/line`);
        if (!tried.reached) break;
        if (tried.code === 0) install("--uninstall");
        else failed++;
        expect(changes(), `${tool}, call ${nth}: ${tried.text}`).toEqual(before);
      }
      expect(failed).toBeGreaterThan(0);
    });

  it("restores the version before it when an upgrade is killed outright, at the next run", () => {
    install(`--bundle ${good}`);
    machine.sh("mv /opt/vibeserve /opt/vibeserve.old; mkdir /opt/vibeserve /opt/vibeserve.new; echo 999999 >/opt/vibeserve.lock");
    const again = install(`--bundle ${good}`);
    expect(again.text).toMatch(/cut short[^]*unchanged/);
    expect(machine.sh("ls /opt | grep vibeserve").text).toBe("vibeserve\n");
    machine.sh("echo $$ >/opt/vibeserve.lock; true");
    expect(machine.sh(`echo $$ >/opt/vibeserve.lock; sh ${SCRIPT} --bundle ${good}; rm /opt/vibeserve.lock`).text).toContain(
      "another installation is under way",
    );
  });
});

describe.skipIf(problem !== null)("the script's own text", () => {
  it("fetches nothing", () => {
    expect(readFileSync(join(DEPLOY, "node/install-agent.sh"), "utf8")).not.toMatch(/\b(curl|wget|http:|https:|ftp)\b/);
  });
});
