import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { probeAgent } from "../../gpu-agent/src/agent.ts";
import { BuildCache } from "../../gpu-agent/src/build/build-cache.ts";
import { buildStack } from "../../gpu-agent/src/build/build-stack.ts";
import { ConfigError, readConfig } from "../../gpu-agent/src/config.ts";
import { openDataFolder } from "../../gpu-agent/src/data-folder.ts";
import type { Platform } from "../../gpu-agent/src/platform.ts";
import { appleCompiler, findCompiler } from "../../gpu-agent/src/probe/compiler.ts";
import { ProcessTree } from "../../gpu-agent/src/process/process-tree.ts";
import { APPLE } from "../../gpu-agent/src/sandbox/device-nodes.ts";
import { probeSandbox, rootProblem } from "../../gpu-agent/src/sandbox/probe-sandbox.ts";
import { SERVE_LIMITS, ulimitArgv } from "../../gpu-agent/src/sandbox/rlimits.ts";
import { SandboxRefused, type Sandbox, type SandboxCommand } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { seatbeltArgv } from "../../gpu-agent/src/sandbox/seatbelt.ts";
import { spawnSandboxed } from "../../gpu-agent/src/sandbox/spawn.ts";
import { startServer } from "../../gpu-agent/src/serve/start-server.ts";
import { startStack } from "../../gpu-agent/src/serve/start-stack.ts";
import { execHandler } from "../../gpu-agent/src/worker/exec.job.ts";
import { jobContext, jobOf, localArtifacts } from "./context-kit.ts";
import { ask, bubblewrap, cheat } from "./kit.ts";
import { mac, script } from "./mac-kit.ts";
import { candidateFiles, packed } from "./tree-kit.ts";

/** What stands in for macOS, and a temporary folder of which a sandbox sees only what it is shown. */
let folder: string;
let bwrap: string;
let platform: Platform;
let sandbox: Sandbox;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "vs-mac-"));
  bwrap = (await bubblewrap()).bwrap ?? "";
  platform = mac(folder, "obeys", bwrap);
  sandbox = await probeSandbox({ bwrapPaths: [], unsafe: false, platform });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const command = (argv: readonly string[], more: Partial<SandboxCommand> = {}): SandboxCommand => ({
  ...{ argv, env: {}, mounts: [], cwd: "/", cpus: null, limits: SERVE_LIMITS, provenance: "shipped" },
  ...more,
});
async function output(box: Sandbox, argv: readonly string[]): Promise<string> {
  const tree = await spawnSandboxed(box, command(argv));
  await tree.exited;
  await tree.logEnded();
  await tree.stop(0);
  return tree.log.text();
}

describe("limits by the shell", () => {
  const ASK = ["/bin/bash", "-c", "ulimit -n; ulimit -t; ulimit -c; ulimit -f"];

  it("hold for the command, and a lower one that holds already is kept", async () => {
    const none = await probeSandbox({ bwrapPaths: [], unsafe: false, platform, forceNone: true });
    expect(none).toMatchObject({ kind: "none", reason: "switched off" });
    expect(await output(none, ASK)).toBe("4096\n14400\n0\n262144\n");
    const lower = ["/bin/sh", "-c", 'ulimit -n 100; exec "$@"', "lower", ...ulimitArgv(SERVE_LIMITS, 10), ...ASK];
    const tree = await ProcessTree.start({ argv: lower, env: {}, cwd: "/", uid: null, mark: "VS=1", bwrap: null });
    expect((await tree.exited).code).toBe(0);
    await tree.logEnded();
    // Who may raise it gets what was asked for.
    expect(["100", "4096"]).toContain(tree.log.text().split("\n")[0]);
    await expect(spawnSandboxed(none, command(["true"], { provenance: "model" }))).rejects.toThrow(SandboxRefused);
  });
});

it("an agent is not root where nothing gives a candidate a user of its own: on a Mac never, on Linux without setpriv", async () => {
  const asRoot = probeSandbox({ bwrapPaths: [], unsafe: true, platform: { ...platform, uid: 0 } });
  await expect(asRoot).rejects.toThrow("gpu-agent: it runs as root, and on macOS candidates would too");
  await expect(asRoot).rejects.toBeInstanceOf(ConfigError);
  expect(rootProblem({ name: "linux", uid: 0 }, null)).toContain("without setpriv candidates would too");
  expect(rootProblem({ name: "linux", uid: 0 }, "/usr/bin/setpriv")).toBeNull();
  for (const name of ["linux", "darwin"] as const) expect(rootProblem({ name, uid: 501 }, null)).toBeNull();
});

describe("sandbox-exec", () => {
  it("is taken where it keeps a trial from what it must not do, and named as the reason where it does not", async () => {
    expect(sandbox).toMatchObject({ kind: "seatbelt", reason: "" });
    const reasonOf = async (other: Platform): Promise<string> => {
      const found = await probeSandbox({ bwrapPaths: [], unsafe: false, platform: other });
      expect(found.kind).toBe("none");
      return found.reason;
    };
    expect(await reasonOf(mac(folder, "ignores"))).toContain("it read outside its folders");
    expect(await reasonOf(mac(folder, "online", bwrap))).toContain("it reached the network");
    expect(await reasonOf(mac(folder, "nested"))).toContain("sandbox_apply: Operation not permitted");
    expect(await reasonOf(mac(folder, "noGpu", bwrap))).toMatch(/with the GPU: .*no such class/);
    expect(await reasonOf({ ...platform, sandboxExec: join(folder, "nothing") })).toContain("nothing");
  });

  it("runs what a model wrote: it serves, sees and writes what is its own, and reaches no network", async () => {
    const secret = join(folder, "secret");
    writeFileSync(secret, "SUAMSEED");
    const read = await startServer({ sandbox }, cheat("read", secret, { provenance: "model" }));
    expect(read.sandbox).toBe("seatbelt");
    const report = await ask(read.socketPath, "/report");
    expect((report["read"] as Record<string, string>)[secret]).toMatch(/^refused: ENOENT/);
    const env = report["env"] as Record<string, string>;
    expect(env["TMPDIR"]).toMatch(/\/vs-tmp-/);
    expect(env["HOME"]).toBe(env["TMPDIR"]);
    expect(existsSync(env["TMPDIR"] ?? "")).toBe(true);
    await read.pause();
    await read.resume();
    expect(await read.cpuSeconds()).toBeGreaterThanOrEqual(0);
    await read.stop();
    await expect.poll(() => existsSync(env["TMPDIR"] ?? "")).toBe(false);
    const paths = ["/usr/bin/evil", join(folder, "evil")];
    const write = await startServer({ sandbox }, cheat("write", paths.join(","), { provenance: "model" }));
    const written = (await ask(write.socketPath, "/report"))["write"] as Record<string, string>;
    for (const path of paths) expect(written[path], path).toMatch(/^refused: /);
    await write.stop();
    expect(readdirSync(folder)).not.toContain("evil");
  });

  it("gets a profile of exactly what the command may touch, by its own and its real paths; the GPU for its device alone", () => {
    const [out, source, link] = [join(folder, "out"), join(folder, "source"), join(folder, "link")];
    for (const dir of [out, source]) mkdirSync(dir);
    writeFileSync(link, "");
    const mounts = [
      { from: source, to: "/src", mode: "ro" as const },
      { from: out, to: "/out", mode: "rw" as const },
    ];
    const [program, flag, profile = ""] = seatbeltArgv("/usr/bin/sandbox-exec", sandbox, { mounts }, folder);
    expect([program, flag]).toEqual(["/usr/bin/sandbox-exec", "-p"]);
    const line = (start: string): string => profile.split("\n").find((text) => text.startsWith(`(allow ${start}`)) ?? "";
    expect(line("file-read* file-map")).toContain(`(subpath "${source}")`);
    expect(line("file-write")).not.toContain(source);
    expect(line("file-write")).toContain(`(subpath "${out}")`);
    expect(line("network")).toContain(`(local unix-socket (subpath "${out}"))`);
    expect(profile).not.toContain("AGX");
    expect(seatbeltArgv("x", { ...sandbox, device: APPLE }, { mounts }, folder)[2]).toContain("AGXDeviceUserClient");
    expect(() => seatbeltArgv("x", sandbox, { mounts: [{ from: join(folder, "gone"), mode: "ro" }] }, folder)).toThrow("ENOENT");
  });
});

it("an agent's probe says in which sandbox candidates run, and offers no compiler to others", async () => {
  const data = await openDataFolder(join(folder, "agent"));
  const { config } = readConfig(["--data", data.root, "--cache", join(folder, "cache"), "--servers", "nats://127.0.0.1:1"], {});
  const probed = await probeAgent(config, data, platform);
  expect(probed.info.sandbox).toBe("seatbelt");
  expect(probed.cpu.labels).toMatchObject({ "vibeserve.dev/sandbox": "seatbelt", "vibeserve.dev/cpu.isa.source": "architecture" });
  expect([...probed.farm.compilers]).toEqual([]);
});

it("what a model wrote is built, served and tried in sandbox-exec, under this machine's own paths", async () => {
  const artifacts = localArtifacts(join(folder, "artifacts"));
  const { tar, treeDigest } = packed(candidateFiles("serve"));
  const ref = { tree: await artifacts.put(tar), treeDigest, provenance: "model" as const };
  const compiler = await findCompiler(null);
  const signal = new AbortController().signal;
  const cache = new BuildCache(join(folder, "builds"));
  const built = await buildStack({ sandbox, compiler, artifacts, cache, signal, progress: () => undefined }, ref);
  const modelPath = join(folder, "model.gguf");
  writeFileSync(modelPath, "weights");
  const stack = await startStack({ sandbox }, { buildDir: built.dir, modelPath, cpus: "0", healthTimeoutMs: 15_000, provenance: "model" });
  expect(stack.sandbox).toBe("seatbelt");
  await stack.stop();
  const spec = {
    kind: "exec" as const,
    ...ref,
    argv: ["sh", "-c", "pwd; echo x > written && ls"],
    limitMs: 10_000,
  };
  const ran = await execHandler({ compiler })(jobOf(spec), jobContext(sandbox, artifacts));
  expect(ran).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(/\/vs-exec-\w+\/tree\nbuild.sh\nmain.cpp\nstack.json\nwritten\n/) as string,
  });
});

it("Apple's compiler is the real one behind its name in /usr/bin, with the SDK; without its tools there is none", async () => {
  const said = "Apple clang version 15.0.0 (clang-1500.3.9.4)\\nTarget: arm64-apple-darwin23.5.0\\nThread model: posix\\n";
  mkdirSync(join(folder, "usr/bin"), { recursive: true });
  const clang = script(join(folder, "usr/bin/clang++"), `printf '${said}'\n`);
  const sdk = join(folder, "MacOSX.sdk");
  const xcrun = script(join(folder, "xcrun"), `case $1 in --find) echo ${clang} ;; --show-sdk-path) echo ${sdk} ;; *) exit 64 ;; esac\n`);
  expect(await appleCompiler(xcrun)).toMatchObject({
    name: "clang",
    version: "15.0.0",
    argv: [clang, "-isysroot", sdk],
    mounts: [join(folder, "usr"), sdk],
  });
  const without = script(join(folder, "xcrun-none"), "echo 'xcrun: error: unable to find utility' >&2\nexit 72\n");
  expect(await appleCompiler(without)).toBeNull();
});
