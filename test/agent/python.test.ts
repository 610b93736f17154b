import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BuildCache } from "../../gpu-agent/src/build/build-cache.ts";
import { buildStack } from "../../gpu-agent/src/build/build-stack.ts";
import { findCompiler } from "../../gpu-agent/src/probe/compiler.ts";
import { vendorTools } from "../../gpu-agent/src/device/vendor-tool.ts";
import { pythonPackages } from "../../gpu-agent/src/probe/toolchains.ts";
import { forbidden } from "../../gpu-agent/src/sandbox/forbidden.ts";
import { openToAll } from "../../gpu-agent/src/sandbox/placement.ts";
import { findPython, tryPython, type SandboxPython } from "../../gpu-agent/src/sandbox/python.ts";
import type { Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { startStack } from "../../gpu-agent/src/serve/start-stack.ts";
import { localArtifacts } from "./context-kit.ts";
import { ask, bubblewrap, noSandbox } from "./kit.ts";
import { MANIFEST, packed } from "./tree-kit.ts";

const MAIN = join(import.meta.dirname, "../../gpu-agent/src/main.ts");
/** Asks the module that only the environment has, when it is built and when it serves. */
const BUILD = `import os, shutil, sys
import only_here
shutil.copy("server.py", sys.argv[1])
os.chmod(sys.argv[1], 0o755)
`;
const SERVER = `import http.server, json, os, socketserver, subprocess, sys
import only_here

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        other = subprocess.run(["python", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True).stdout.strip()
        seen = {p: os.path.exists(p) for p in sys.argv[3].split(",")}
        body = json.dumps({"word": only_here.WORD, "prefix": sys.prefix, "python": other, "path": os.environ["PATH"], "uid": os.getuid(), "seen": seen}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "unix"
    def log_message(self, *_):
        pass

with socketserver.ThreadingUnixStreamServer(sys.argv[2], Answer) as server:
    server.serve_forever()
`;

let root: string;
let venv: string;
let python: SandboxPython;
const named = (): string => join(venv, "bin/python3");

beforeAll(async () => {
  // Mode 0700, as a user's own folders are: the sandbox has folders of its own above what it shows.
  root = mkdtempSync(join(tmpdir(), "vs-python-"));
  venv = join(root, "project");
  execFileSync("/usr/bin/python3", ["-m", "venv", "--without-pip", venv]);
  const site = execFileSync(named(), ["-c", "import site; print(site.getsitepackages()[0])"], { encoding: "utf8" }).trim();
  writeFileSync(join(site, "only_here.py"), 'WORD = "from the environment"\n');
  // An environment may be made in a folder that holds more.
  writeFileSync(join(venv, "diary.txt"), "private");
  const found = await findPython(named(), join(root, "agent"));
  if (found === null) throw new Error("it was taken for the system's");
  python = found;
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

async function served(sandbox: Sandbox): Promise<Record<string, unknown>> {
  const manifest = { ...MANIFEST, build: ["python3", "build.py", "${OUT}"], serve: ["python3", "${OUT}", "--socket", "${SOCKET}"] };
  const asked = [join(venv, "diary.txt"), join(venv, "pyvenv.cfg")].join(",");
  const files = {
    "stack.json": JSON.stringify({ ...manifest, serve: [...manifest.serve, asked] }),
    "build.py": BUILD,
    "server.py": SERVER,
  };
  const { tar, treeDigest } = packed(new Map(Object.entries(files).map(([path, text]) => [path, Buffer.from(text)])));
  const artifacts = localArtifacts(join(root, "artifacts"));
  const model = join(root, "model.gguf");
  writeFileSync(model, "weights");
  const tree = await artifacts.put(tar);
  const cache = new BuildCache(mkdtempSync(join(root, "builds-")));
  const deps = {
    sandbox,
    compiler: await findCompiler(null),
    artifacts,
    cache,
    signal: new AbortController().signal,
    progress: () => undefined,
  };
  const built = await buildStack(deps, { treeDigest, tree, provenance: "shipped" });
  // The same tree, built by another Python, is another build.
  const { python: _, ...without } = sandbox;
  await expect(buildStack({ ...deps, sandbox: without }, { treeDigest, tree, provenance: "shipped" })).rejects.toMatchObject({
    code: "build-failed",
    logTail: expect.stringContaining("only_here") as string,
  });
  const spec = { buildDir: built.dir, modelPath: model, cpus: "0", healthTimeoutMs: 15_000, provenance: "shipped" as const };
  const stack = await startStack({ sandbox }, spec);
  try {
    return await ask(stack.socketPath, "/health");
  } finally {
    await stack.stop();
  }
}

describe("a Python outside the system's folders", () => {
  it("is what a stack gets as python3 and python in the sandbox, with its modules, and nothing else of the folder that it lies in", async () => {
    const sandbox = { ...(await bubblewrap()), python };
    await tryPython(sandbox, python);
    const report = await served(sandbox);
    expect(report).toMatchObject({ word: "from the environment", prefix: venv, python: venv, path: `${venv}/bin:/usr/bin:/bin` });
    expect(report["seen"]).toEqual({ [join(venv, "diary.txt")]: false, [join(venv, "pyvenv.cfg")]: true });
    expect(report["uid"]).not.toBe(0);
    expect(python.mounts.every((path) => path.startsWith(`${venv}/`))).toBe(true);
  });

  it("comes first on PATH where there is no sandbox; root's other user must be able to reach it", async () => {
    const sandbox = { ...(await noSandbox()), python };
    if (process.getuid?.() === 0) {
      await expect(tryPython(sandbox, python)).rejects.toThrow(`candidates' user can't read ${venv}/bin (chmod -R a+rX)`);
      chmodSync(root, 0o711);
    }
    try {
      await tryPython(sandbox, python);
      expect(await served(sandbox)).toMatchObject({ word: "from the environment", prefix: venv, python: venv });
    } finally {
      chmodSync(root, 0o700);
    }
  });

  it("that candidates' user can't read is said with the folder", async () => {
    if (process.getuid?.() !== 0) return;
    chmodSync(join(venv, "lib"), 0o700);
    try {
      await expect(tryPython({ ...(await bubblewrap()), python }, python)).rejects.toThrow(
        `--python ${named()}: it does not run in the sandbox: candidates' user can't read ${venv}/lib`,
      );
    } finally {
      chmodSync(join(venv, "lib"), 0o755);
    }
  });

  it("a folder of it that can't be listed is not the end: a trial in the sandbox says what is wrong", async () => {
    const bin = join(root, "odd/bin");
    mkdirSync(bin, { recursive: true });
    // root can list every folder, so that this one is a file.
    writeFileSync(join(root, "odd/lib"), "");
    const said = {
      executable: join(bin, "python3"),
      version: "3",
      prefix: join(root, "odd"),
      prefixes: [],
      folders: [join(root, "odd/lib")],
    };
    writeFileSync(join(bin, "python3"), `#!/bin/sh\necho '${JSON.stringify(said)}'\n`, { mode: 0o755 });
    expect(await findPython(join(bin, "python3"), join(root, "agent"))).toMatchObject({ libraries: [join(root, "odd/lib")] });
  });

  it("may be reached over links that lie elsewhere", async () => {
    const elsewhere = join(root, "elsewhere");
    mkdirSync(elsewhere);
    symlinkSync(realpathSync("/usr/bin/python3"), join(elsewhere, "python-of-the-site"));
    const linked = join(root, "linked");
    execFileSync("/usr/bin/python3", ["-m", "venv", "--without-pip", linked]);
    for (const name of ["python", "python3"]) {
      rmSync(join(linked, "bin", name));
      symlinkSync(join(elsewhere, "python-of-the-site"), join(linked, "bin", name));
    }
    const found = await findPython(join(linked, "bin/python3"), join(root, "agent"));
    expect(found?.mounts).toContain(join(elsewhere, "python-of-the-site"));
    if (found) await tryPython({ ...(await bubblewrap()), python: found }, found);
  });
});

describe("an upgraded package", () => {
  let site: string;
  const install = (name: string, version: string, record: string): void => {
    const folder = join(site, `${name}-${version}.dist-info`);
    mkdirSync(folder);
    writeFileSync(join(folder, "METADATA"), `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n`);
    writeFileSync(join(folder, "RECORD"), record);
  };

  it("is another Python: another key for builds, another tool beside measurements; of what does not count only the key knows", async () => {
    const upgraded = join(root, "upgraded");
    execFileSync("/usr/bin/python3", ["-m", "venv", "--without-pip", upgraded]);
    const program = join(upgraded, "bin/python3");
    site = execFileSync(program, ["-c", "import site; print(site.getsitepackages()[0])"], { encoding: "utf8" }).trim();
    const look = async () => ({
      digest: (await findPython(program, join(root, "agent")))?.digest,
      tools: await pythonPackages(vendorTools(null, program)),
    });
    install("torch", "2.11.0+cu128", "torch/__init__.py,sha256=a,1\n");
    mkdirSync(join(site, "damaged-1.0.dist-info"));
    writeFileSync(join(site, "damaged-1.0.dist-info/METADATA"), Buffer.from([0xff, 0xfe]));
    install("nvidia_cublas_cu12", "12.8.4.1", "");
    install("nvidia_cuda_runtime_cu12", "12.8.90", "");
    const before = await look();
    expect(before.tools.map((t) => [t.name, t.version])).toEqual([
      ["cuda-packages", "12.8.90"],
      ["torch", "2.11.0+cu128"],
    ]);
    expect(await look()).toEqual(before);
    install("rich", "14.0.0", "");
    const unrelated = await look();
    expect(unrelated.tools).toEqual(before.tools);
    rmSync(join(site, "torch-2.11.0+cu128.dist-info"), { recursive: true });
    install("torch", "2.11.1+cu128", "torch/__init__.py,sha256=b,1\n");
    const after = await look();
    expect(after.tools[1]).toMatchObject({ name: "torch", version: "2.11.1+cu128" });
    expect(after.tools[1]?.digest).not.toBe(before.tools[1]?.digest);
    expect(new Set([before.digest, unrelated.digest, after.digest]).size).toBe(3);
    install("nvidia_cudnn_cu12", "9.10.2.21", "");
    const libraries = await look();
    expect(libraries.tools[0]?.version).toBe("12.8.90");
    expect(libraries.tools[0]?.digest).not.toBe(after.tools[0]?.digest);
  });
});

it("what everyone can read is asked of a file, of a program and folder that they can enter too, and of the folders above where these count", async () => {
  const dir = join(root, "modes");
  mkdirSync(dir, { mode: 0o755 });
  chmodSync(root, 0o711);
  const made = (name: string, mode: number): string => {
    writeFileSync(join(dir, name), "");
    chmodSync(join(dir, name), mode);
    return join(dir, name);
  };
  try {
    for (const [mode, open] of [
      [0o644, true],
      [0o640, false],
      [0o755, true],
      [0o754, false],
    ] as const)
      expect(await openToAll(made(`f${mode.toString(8)}`, mode)), mode.toString(8)).toBe(open);
    expect(await openToAll(dir)).toBe(true);
    chmodSync(dir, 0o754);
    expect(await openToAll(dir)).toBe(false);
    expect([await openToAll(join(dir, "f644")), await openToAll(join(dir, "f644"), false)]).toEqual([false, true]);
  } finally {
    chmodSync(root, 0o700);
  }
});

describe("what is named", () => {
  const find = (path: string, data = join(root, "agent"), home?: string): Promise<SandboxPython | null> => findPython(path, data, home);

  it("the system's own needs nothing; a name without a path, a file that is none and one that does not run are refused", async () => {
    expect(await findPython(null, root)).toBeNull();
    expect(await find("/usr/bin/python3")).toBeNull();
    await expect(find("python3")).rejects.toThrow("gpu-agent: --python python3: give an absolute path: PATH is not searched");
    await expect(find(join(root, "none"))).rejects.toThrow("there is no such program");
    await expect(find("/bin/false")).rejects.toThrow("--python /bin/false: it does not run");
  });

  it("an interpreter whose folder has another python3 is refused, with the way out", async () => {
    const other = join(root, "other-bin");
    mkdirSync(other);
    symlinkSync(realpathSync("/usr/bin/python3"), join(other, "python3.99"));
    await expect(find(join(other, "python3.99"))).rejects.toThrow(
      `${other}/python3 is not this interpreter, so a stack that says python3 would get another: make an environment with it`,
    );
  });

  it("folders that no candidate may see are refused", async () => {
    await expect(find(named(), root)).rejects.toThrow(`it needs ${venv}/bin, and the agent's private folder is in it, or it in that`);
    const home = join(root, "home");
    mkdirSync(home);
    symlinkSync(realpathSync("/usr/bin/python3"), join(home, "python3"));
    await expect(find(join(home, "python3"), undefined, home)).rejects.toThrow(`it needs ${home}, and that is a home folder as a whole`);
    const why = (path: string): string | null => forbidden(path, "/srv/vibeserve/agent", "/var/lib/vs");
    for (const path of ["/", "/opt", "/root", "/home", "/etc", "/etc/python", "/proc/1", "/run/user/0", "/home/ann", "/Users/ann"])
      expect(why(path), path).not.toBeNull();
    for (const path of ["/srv/vibeserve", "/srv/vibeserve/agent", "/srv/vibeserve/agent/venv/lib", "/var/lib", "/var/lib/vs"])
      expect(why(path), path).not.toBeNull();
    for (const path of ["/opt/torch/.venv/lib", "/home/ann/venv/bin", "/var/lib/vs/python/bin", "/srv/vibeserve-python"])
      expect(why(path), path).toBeNull();
  });

  it("the agent names it among its options and ends with 2 where it can't be used", () => {
    const agent = (...more: string[]): ReturnType<typeof spawnSync> =>
      spawnSync(process.execPath, [MAIN, "--describe", "--data", join(root, "data"), ...more], {
        encoding: "utf8",
        env: { ...process.env, HOME: homedir() },
      });
    expect(agent("--python", "python3")).toMatchObject({ status: 2, stderr: expect.stringContaining("give an absolute path") as string });
    const described = agent("--python", named());
    expect(described).toMatchObject({ status: 0, stderr: "" });
  });
});
