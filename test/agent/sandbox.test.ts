import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTable } from "../../gpu-agent/src/process/proc-table.ts";
import { SandboxRefused, type Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import type { RunningStack } from "../../gpu-agent/src/serve/running-stack.ts";
import type { ServerSpec } from "../../gpu-agent/src/serve/server-spec.ts";
import { startServer } from "../../gpu-agent/src/serve/start-server.ts";
import { ask, bubblewrap, cheat, noSandbox } from "./kit.ts";

let sandbox: Sandbox;
let privateDir: string;

beforeAll(async () => {
  sandbox = await bubblewrap();
  privateDir = mkdtempSync(join(tmpdir(), "vs-private-"));
  chmodSync(privateDir, 0o700);
  writeFileSync(join(privateDir, "agent.nk"), "SUAMSEED");
});
afterAll(() => rmSync(privateDir, { recursive: true, force: true }));

async function withServer<T>(spec: ServerSpec, use: (s: RunningStack) => Promise<T>, box = sandbox): Promise<T> {
  const server = await startServer({ sandbox: box }, spec);
  try {
    return await use(server);
  } finally {
    await server.stop();
  }
}

const sleepers = (): number => readTable().filter((p) => p.state !== "Z" && cmdline(p.pid).includes("while :; do sleep 1")).length;
function cmdline(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

describe("in bubblewrap", () => {
  it("is what this machine gives", () => {
    expect(sandbox.reason).toBe("");
    expect(sandbox.kind).toBe("bubblewrap");
  });

  it("a single file may be handed over to be written, as a baseline's weights are", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vs-handed-"));
    chmodSync(folder, 0o755);
    const file = join(folder, "model.gguf");
    writeFileSync(file, "weights");
    const spec = cheat("plain");
    const mounts = [...spec.mounts, { from: file, to: "/model/model.gguf", mode: "rw" as const }];
    await withServer({ ...spec, mounts }, async (s) => expect(await ask(s.socketPath, "/health")).toBeTypeOf("object"));
    if (process.getuid?.() === 0) expect(statSync(file).uid).not.toBe(0);
    expect(readFileSync(file, "utf8")).toBe("weights");
    rmSync(folder, { recursive: true });
  });

  it("a candidate cannot reach the network, not even this machine's loopback", async () => {
    const listener = createServer((s) => s.end()).listen(0, "127.0.0.1");
    await new Promise((r) => listener.once("listening", r));
    let knocks = 0;
    listener.on("connection", () => knocks++);
    const port = (listener.address() as { port: number }).port;
    const report = await withServer(cheat("network", String(port)), (s) => ask(s.socketPath, "/report"));
    expect(report["tcp"]).toMatch(/^refused: /);
    expect(knocks).toBe(0);
    listener.close();
  });

  it("a candidate sees nothing of the agent's folders, home, users or other processes, and no environment but its own", async () => {
    const paths = [
      join(privateDir, "agent.nk"),
      "/etc/passwd",
      "/etc/shadow",
      `/proc/${process.pid}/environ`,
      "/root/.profile",
      "/proc/1/environ",
    ];
    const report = await withServer(cheat("read", paths.join(",")), (s) => ask(s.socketPath, "/report"));
    const read = report["read"] as Record<string, string>;
    for (const p of paths.slice(0, 5)) expect(read[p], p).toMatch(/^refused: (ENOENT|EACCES)/);
    expect(JSON.stringify(read)).not.toContain(process.env["PATH"] ?? "no path");
    expect(report["processes"]).toBeLessThan(6);
    expect(Object.keys(report["env"] as object).sort()).toEqual(["HOME", "LANG", "PATH", "PWD", "TMPDIR", "USER"]);
    expect(report["uid"]).not.toBe(0);
    expect((report["root"] as string[]).sort()).not.toContain("home");
  });

  it("a candidate can write to its own /tmp and nowhere else", async () => {
    const paths = [
      "/tmp/own",
      "/usr/bin/evil",
      "/etc/ld.so.preload",
      "/evil",
      "/dev/evil",
      join(privateDir, "evil"),
      "/sys/devices/system/cpu/evil",
    ];
    const report = await withServer(cheat("write", paths.join(",")), (s) => ask(s.socketPath, "/report"));
    const write = report["write"] as Record<string, string>;
    expect(write["/tmp/own"]).toBe("written");
    for (const p of paths.slice(1)) expect(write[p], p).toMatch(/^refused: /);
    expect(existsSync("/tmp/own")).toBe(false);
  });

  it("daemons with a session of their own that ignore TERM are gone after stop", async () => {
    await withServer(cheat("daemon"), async (s) => {
      await ask(s.socketPath, "/report");
      await expect.poll(sleepers).toBeGreaterThanOrEqual(3);
    });
    expect(sleepers()).toBe(0);
  });

  it("a flood of 100 MB on the log takes no memory here and leaves its end readable, without escapes", async () => {
    const before = process.memoryUsage().rss;
    await withServer(cheat("flood"), async (s) => {
      expect(s.logTail()).toMatch(/x{100}\nflooded\n$/);
      expect(s.logTail()).not.toContain("\u001b");
      expect(s.logTail().length).toBeLessThanOrEqual(8000);
    });
    expect(process.memoryUsage().rss - before).toBeLessThan(60 * 2 ** 20);
  });

  it("a fork bomb is stopped by the limit on processes", async () => {
    const report = await withServer(cheat("forks", "", { limits: { processes: 64 } }), (s) => ask(s.socketPath, "/report"));
    expect(report["forks"]).toMatch(/^refused after \d\d?: EAGAIN/);
  });

  it("a memory bomb ends by itself or is killed, and the machine keeps its memory", async () => {
    await withServer(cheat("memory", "", { limits: { memBytes: 700 * 2 ** 20 } }), async (s) => {
      await expect(ask(s.socketPath, "/memory")).rejects.toThrow();
      const exit = await s.exited;
      expect(exit.code).not.toBe(0);
    });
  });

  it("nested namespaces, mounts and ptrace are refused by seccomp", async () => {
    const script = "unshare -U true; echo user=$?; unshare -n true; echo net=$?; mount -t tmpfs x /tmp; echo mount=$?; exec sleep 0.1";
    await expect(
      startServer({ sandbox }, { ...cheat("plain"), argv: ["/bin/bash", "-c", script], healthTimeoutMs: 5000 }),
    ).rejects.toMatchObject({ code: "exited-at-start", logTail: expect.stringMatching(/user=1[^]*net=1[^]*mount=(1|32)\b/) as string });
  });

  it("a server that ends at its start, or never answers, is its own failure, with the log's tail", async () => {
    await expect(startServer({ sandbox }, cheat("exit"))).rejects.toMatchObject({
      name: "StackError",
      code: "exited-at-start",
      message: expect.stringContaining("exit code 3") as string,
      logTail: "fatal: no such kernel\n",
    });
    await expect(startServer({ sandbox }, { ...cheat("hang"), healthTimeoutMs: 700 })).rejects.toMatchObject({ code: "health-timeout" });
  });

  it("an abort while it starts stops it", async () => {
    const abort = new AbortController();
    const start = startServer({ sandbox }, { ...cheat("hang"), signal: abort.signal });
    setTimeout(() => abort.abort(new Error("deadline")), 200);
    await expect(start).rejects.toThrow("deadline");
  });

  it("a paused tree uses no CPU; its time is counted, and it answers again after resume", async () => {
    await withServer(cheat("plain"), async (s) => {
      const before = await s.cpuSeconds();
      await ask(s.socketPath, "/spin");
      const after = await s.cpuSeconds();
      expect(after - before).toBeGreaterThan(0.05);
      await s.pause();
      const answer = ask(s.socketPath, "/spin");
      const paused = await s.cpuSeconds();
      await new Promise((r) => setTimeout(r, 150));
      expect(await s.cpuSeconds()).toBe(paused);
      await s.resume();
      await answer;
    });
  });

  it("death under load is seen at once", async () => {
    await withServer(cheat("plain"), async (s) => {
      await expect(ask(s.socketPath, "/die")).rejects.toThrow();
      expect(await s.exited).toMatchObject({ code: 7, signal: null });
      await expect(s.cpuSeconds()).rejects.toThrow("gone");
    });
  });
});

describe("where there is no sandbox", () => {
  it("code of a model is refused, and the message says what to do", async () => {
    const none = await noSandbox();
    expect(none.kind).toBe("none");
    await expect(startServer({ sandbox: none }, { ...cheat("plain"), provenance: "model" })).rejects.toThrow(SandboxRefused);
    await expect(startServer({ sandbox: none }, { ...cheat("plain"), provenance: "model" })).rejects.toThrow(/--unsafe-no-sandbox/);
  });

  it("shipped code runs as another user under rlimits, can't read the agent's folder, and its daemons are killed", async () => {
    const none = await noSandbox();
    const own = process.getuid?.() === 0;
    const spec = cheat("read", join(privateDir, "agent.nk"));
    const paths = { mounts: own ? spec.mounts : [] };
    const staged = {
      ...spec,
      mounts: [...paths.mounts, { from: join(import.meta.dirname, "candidates"), mode: "ro" as const }],
    };
    await withServer(
      staged,
      async (s) => {
        expect(s.sandbox).toBe("none");
        const report = await ask(s.socketPath, "/report");
        if (own) {
          expect(report["uid"]).not.toBe(0);
          expect((report["read"] as Record<string, string>)[join(privateDir, "agent.nk")]).toMatch(/^refused: EACCES/);
        }
        expect(statSync(s.socketPath).isSocket()).toBe(true);
      },
      none,
    );
    // As root they are found by their uid; otherwise only by what they inherit, which is why only shipped code may run like this.
    await withServer(cheat("daemon", own ? "" : "keep-environment"), (s) => ask(s.socketPath, "/report"), none);
    expect(sleepers()).toBe(0);
  });
});
