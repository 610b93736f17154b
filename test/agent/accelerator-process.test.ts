import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { Reference } from "../../gpu-agent/src/accuracy/index.ts";
import { ownPids } from "../../gpu-agent/src/bench/run-once.ts";
import { driverLibraries } from "../../gpu-agent/src/device/nvidia-library.ts";
import { foreignPids } from "../../gpu-agent/src/device/conditions.ts";
import { forAccelerator, SERVE_LIMITS } from "../../gpu-agent/src/sandbox/rlimits.ts";
import { startServer } from "../../gpu-agent/src/serve/start-server.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { bubblewrap } from "./kit.ts";

/** A root with empty libraries, and a linker's cache in glibc's way: names and paths, each ended by a NUL. */
function root(files: readonly string[], cached: readonly string[]): { path: string } & Disposable {
  const dir = tempDir("libraries");
  for (const path of ["/etc/ld.so.cache", ...files]) {
    mkdirSync(dirname(join(dir.path, path)), { recursive: true });
    writeFileSync(join(dir.path, path), "");
  }
  writeFileSync(join(dir.path, "etc/ld.so.cache"), `glibc-ld.so.cache1.1\0\0${cached.map((path) => `${path}\0`).join("")}`);
  return dir;
}

it("the driver's libraries are pointed at only where the dynamic linker does not find them itself", () => {
  const [cuda, ml] = ["/usr/local/nvidia/lib64/libcuda.so.1", "/usr/local/nvidia/lib64/libnvidia-ml.so.1"];
  const ask = (files: readonly string[], cached: readonly string[]): unknown => {
    using dir = root(files, cached);
    return driverLibraries(dir.path);
  };
  const found = { LD_LIBRARY_PATH: "/usr/local/nvidia/lib64" };
  expect(ask([], [])).toEqual({});
  expect(ask([cuda, ml], ["/lib/libc.so.6"])).toEqual(found);
  expect(ask([cuda, ml], [cuda, ml])).toEqual({});
  // An image's cache that names the file of another machine's driver.
  expect(ask([cuda, ml], ["/usr/lib/elsewhere/libcuda.so.1", ml])).toEqual(found);
  expect(ask([cuda, ml, `/usr/lib/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu/libcuda.so.1`], [ml])).toEqual({});
  const compat = "/usr/local/cuda/compat/libcuda.so.1";
  expect(ask([compat, "/usr/local/nvidia/lib/libnvidia-ml.so.1"], [])).toEqual({
    LD_LIBRARY_PATH: "/usr/local/cuda/compat:/usr/local/nvidia/lib",
  });
  expect(ask([compat, cuda, ml], [])).toEqual(found);
});

it("a reference that the agent keeps is no foreign process of the device, nor is what it has started; another's is", async () => {
  const child = spawn("/bin/sh", ["-c", "sleep 60 & echo $!; wait"], { stdio: ["ignore", "pipe", "ignore"], detached: true });
  try {
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    const pids = [child.pid ?? 0, Number(line.toString())];
    const own = ownPids([{ pids: () => [4_000_001] }]);
    expect(foreignPids([...pids, 4_000_001, process.ppid], own)).toEqual([process.ppid]);
  } finally {
    process.kill(-(child.pid ?? 0), "SIGKILL");
  }
});

/** The reference's first frame, with what it sees of the environment as its kernel. */
const HELLO = `import json, os, struct, sys
seen = " ".join(os.environ.get(n, "-") for n in ("CUDA_VISIBLE_DEVICES", "PATH"))
hello = json.dumps(dict(protocol=1, top=1, vocab=2, context=3, layers=1, threads=1, kernel=seen)).encode()
sys.stdout.buffer.write(struct.pack("<4I", 0x53525356, 0, 0, len(hello)) + hello)
sys.stdout.flush()
sys.stdin.read()
`;

it("the reference runs in the agent's environment, and sees the agent's accelerator", async () => {
  using dir = tempDir("reference");
  const script = join(dir.path, "reference.py");
  writeFileSync(script, HELLO);
  const options = { executable: "/usr/bin/python3", script: [script], model: "none", env: { CUDA_VISIBLE_DEVICES: "GPU-1" } };
  await using reference = new Reference(options);
  expect((await reference.hello()).kernel).toBe(`GPU-1 ${process.env["PATH"] ?? "-"}`);
});

it("on an accelerator a stack has room for its runtime, threads and compiled kernels; what it states beyond that holds", async () => {
  expect(forAccelerator({ ...SERVE_LIMITS, memBytes: 64 * 2 ** 30 })).toMatchObject({ memBytes: 64 * 2 ** 30, processes: 4096 });
  using dir = tempDir("limits");
  chmodSync(dir.path, 0o755);
  const server = join(dir.path, "server.py");
  writeFileSync(
    server,
    `import http.server, os, socketserver, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def address_string(self):
        return "unix"
with open("/proc/self/limits") as limits:
    print(limits.read())
tmp = os.statvfs("/tmp")
print("tmp", tmp.f_blocks * tmp.f_frsize)
import getpass
print("user", getpass.getuser(), flush=True)
socketserver.UnixStreamServer(sys.argv[1], Answer).serve_forever()
`,
  );
  const node = ["/dev/fuse", "/dev/kmsg", "/dev/hwrng"].find((path) => existsSync(path)) ?? "/dev/null";
  const device = { nodes: [node], readOnly: [], groups: [], env: {} };
  const spec = { argv: ["python3", server, "${SOCKET}"], env: {}, mounts: [{ from: dir.path, mode: "ro" as const }] };
  const stack = await startServer(
    { sandbox: { ...(await bubblewrap()), device } },
    { ...spec, cpus: "0", healthTimeoutMs: 15_000, provenance: "shipped" },
  );
  try {
    const said = stack.logTail();
    const hard = (name: string): number => Number(new RegExp(`^${name}\\s+(\\d+)`, "m").exec(said)?.[1] ?? NaN);
    const own = Number(/^Max processes\s+\S+\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? 4096);
    expect([hard("Max data size"), hard("Max file size"), hard("tmp")]).toEqual([16 * 2 ** 30, 4 * 2 ** 30, 4 * 2 ** 30]);
    expect(hard("Max processes")).toBe(Math.min(4096, own));
    expect(said).toMatch(/^Max address space\s+unlimited/m);
    // torch.compile names its cache after the user.
    expect(said).toMatch(/^user stack$/m);
  } finally {
    await stack.stop();
  }
});
