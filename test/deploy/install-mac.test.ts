import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Machine, machineProblem, type Ran } from "../kit/machine.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { DEPLOY, writeFakeBundle, type FakeBundle } from "./fake-bundle.ts";

const dir = tempDir("install-mac");
const archives = join(dir.path, "archives");
mkdirSync(archives);
const bundle = (of: FakeBundle): string => `/srv/archives/${writeFakeBundle(archives, { platform: "darwin-arm64", ...of })}`;
afterAll(() => dir[Symbol.dispose]());

const lacking = ["python3", "perl", "shasum"].find((name) => !existsSync(`/usr/bin/${name}`));
const problem = machineProblem("none") ?? (lacking === undefined ? null : `there is no ${lacking}`);
if (problem !== null) process.stderr.write(`install-mac: install-agent.sh is not run as on a Mac: ${problem}\n`);

/** What of POSIX install-agent.sh and a bundle's scripts use; shasum is the same Perl script as a Mac's, and bsdtar, where it is there, a Mac's tar. No Linux tool is found. */
const TOOLS =
  "awk cat chmod chown cmp cp cut dirname env grep head id kill ln ls mkdir mv perl python3 rm rmdir sed shasum sleep tail touch tr dash bash";

describe.skipIf(problem !== null)("install-agent.sh with programs that stand in for a Mac's", () => {
  let machine: Machine;
  let good = "";
  let before: string[] = [];
  const install = (args: string, shell = "dash"): Ran =>
    machine.sh(`exec env -i PATH=/run/mac HOME=/run ${shell} /srv/node/install-agent.sh --settle 1 ${args}`);
  const changes = (): string[] => machine.changes().filter((line) => !line.includes(" /run/upper/opt "));
  const running = (): string =>
    machine.sh("cat /usr/local/var/vibeserve-agent/running; /run/mac/launchctl print system/ai.vibeserve.agent").text;
  beforeAll(async () => {
    good = bundle({ version: "1.0.0", weights: { "small.gguf": "weights" } });
    machine = await Machine.start("none", {
      [archives]: "/srv/archives",
      [join(DEPLOY, "node")]: "/srv/node",
      [join(import.meta.dirname, "mac")]: "/srv/mac",
    });
    machine.sh(`mkdir -p /run/mac /Library/LaunchDaemons /usr/local/var/cache; mv /usr/bin/setpriv /run/setpriv
      for tool in ${TOOLS}; do ln -s "$(command -v $tool)" /run/mac/; done
      ln -s "$(command -v bsdtar || command -v tar)" /run/mac/tar; ln -s /srv/mac/* /run/mac/; echo tls://coordinator:4222#secret >/run/line`);
    before = changes();
  });
  afterEach(() => install("--uninstall"));
  afterAll(async () => machine[Symbol.asyncDispose]());

  for (const shell of ["dash", "bash"])
    it(`starts a LaunchDaemon under a hidden user of its own, upgrades it, and leaves nothing when it is removed (${shell})`, ({
      skip,
    }) => {
      if (machine.sh(`command -v ${shell}`).code !== 0) skip(`there is no ${shell}`);
      const users = machine.sh("cat /etc/passwd /etc/group").text;
      expect(install(`--bundle ${good} --join-file /run/line`, shell)).toMatchObject({
        code: 0,
        text: expect.stringContaining("installed: /opt/vibeserve, vibeserve-agent, user _vibeserve") as string,
      });
      expect(running()).toMatch(/^1\.0\.0\n[^]*state = running/);
      expect(machine.sh("id -gn _vibeserve; getent passwd _vibeserve | cut -d: -f6,7").text).toBe(
        "_vibeserve\n/usr/local/var/vibeserve-agent:/usr/bin/false\n",
      );
      expect(
        machine.sh("stat -c '%U:%G %a' /etc/vibeserve/join/line /usr/local/var/vibeserve-agent /Library/LaunchDaemons/*.plist").text,
      ).toBe("root:_vibeserve 640\n_vibeserve:_vibeserve 700\nroot:root 644\n");
      expect(machine.sh("cat /usr/local/var/cache/vibeserve-agent/weights/small.gguf").text).toBe("weights");
      expect(install(`--bundle ${good}`, shell).text).toContain("unchanged");
      expect(install(`--bundle ${bundle({ version: "1.1.0" })}`, shell)).toMatchObject({ code: 0 });
      expect(running()).toMatch(/^1\.1\.0\n[^]*state = running/);
      expect(install("--uninstall", shell)).toMatchObject({ code: 0, text: expect.stringContaining("agents revoke") as string });
      expect(machine.sh("cat /etc/passwd /etc/group; ls /run/launchd-* 2>/dev/null").text).toBe(users);
      expect(changes()).toEqual(before);
    });

  it("gives the user a number that neither users nor groups have", () => {
    machine.sh("groupadd -g 400 other");
    expect(install(`--bundle ${good}`).code).toBe(0);
    expect(machine.sh("id -u _vibeserve; id -g _vibeserve").text).toBe("401\n401\n");
    machine.sh("groupdel other");
  });

  it("refuses a bundle for Linux and names both platforms", () => {
    expect(install(`--bundle ${bundle({ version: "1.0.1", platform: "linux-arm64" })}`)).toMatchObject({
      code: 1,
      text: expect.stringContaining("for linux-arm64, and this machine is darwin-arm64") as string,
    });
    expect(changes()).toEqual(before);
  });

  it("puts the version before it back when the new one dies, with what it said", () => {
    expect(install(`--bundle ${good} --join-file /run/line`).code).toBe(0);
    expect(install(`--bundle ${bundle({ version: "1.2.0", behaviour: "dies" })}`)).toMatchObject({
      code: 1,
      text: expect.stringContaining("this version dies") as string,
    });
    expect(running()).toMatch(/^1\.0\.0\n[^]*state = running/);
  });
});
