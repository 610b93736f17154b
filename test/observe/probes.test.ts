import { request } from "node:http";
import { readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { ListenAddress, probeAnswer } from "@vibeserve/shared";
import { StoreGuard } from "../../coordinator/src/broker/store-guard.ts";
import { probes, type Checked } from "../../coordinator/src/observe/checks.ts";
import { HttpListener } from "../../coordinator/src/observe/http-listener.ts";
import { Observer } from "../../coordinator/src/observe/observer.ts";
import { acquireLock } from "../../coordinator/src/process/lock.ts";
import { answerProbes } from "../../gpu-agent/src/probes.ts";
import { startBroker } from "../kit/real-broker.ts";
import { startCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";

const like = (pattern: RegExp) => expect.stringMatching(pattern) as string;
vi.setConfig({ testTimeout: 60_000 });

const ask = async (port: number, path: string) => {
  const response = await fetch(`http://127.0.0.1:${port}${path}`);
  return { status: response.status, text: await response.text() };
};
const listen = { host: "127.0.0.1", port: 0 };

test("a coordinator is alive before it has begun, ready once it has; a broker that hangs fails readiness and never liveness", async () => {
  using dir = tempDir("probes");
  const lockFile = join(dir.path, "data", "up.lock");
  const lock = acquireLock(lockFile, "test");
  await using observer = await Observer.open({ listen, lockFile });
  const { port } = observer;
  expect(await ask(port, "/livez")).toEqual({ status: 200, text: "ok\n" });
  const before = await ask(port, "/startupz");
  expect(before).toMatchObject({
    status: 503,
    text: like(/^\[-\]started failed: it has not begun[^\n]*\n\[\+\]lock ok\nstartupz check failed\n$/),
  });
  expect((await ask(port, "/readyz")).status).toBe(503);

  await using real = await startCoordinator(dir.path, { observer });
  await real.coordinator.campaigns.all;
  expect(await ask(port, "/startupz")).toEqual({ status: 200, text: "ok\n" });
  expect(await ask(port, "/readyz?verbose")).toEqual({
    status: 200,
    text: `${["event-loop", "lock", "scheduler", "started", "broker", "store", "logs"].map((name) => `[+]${name} ok\n`).join("")}readyz check passed\n`,
  });

  const pid = real.coordinator.broker.pid ?? 0;
  process.kill(pid, "SIGSTOP");
  try {
    // Each of its threads stands still only once it was told.
    if (process.platform === "linux") await vi.waitFor(() => expect(readFileSync(`/proc/${pid}/status`, "utf8")).toMatch(/^State:\sT/m));
    expect(await ask(port, "/readyz")).toMatchObject({
      status: 503,
      text: like(/\[-\]broker failed: no answer in 700 ms from 127\.0\.0\.1:\d+/),
    });
    expect((await ask(port, "/livez")).status).toBe(200);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await vi.waitFor(async () => expect((await ask(port, "/readyz")).status).toBe(200), { timeout: 20_000, interval: 100 });

  lock.release();
  expect(await ask(port, "/livez")).toMatchObject({
    status: 503,
    text: like(/\[-\]lock failed: .*up\.lock names nobody that lives/),
  });
  expect(await ask(port, "/campaigns")).toEqual({ status: 404, text: like(/^\/readyz$/m) });
  expect((await fetch(`http://127.0.0.1:${port}/livez`, { method: "POST", body: "x" })).status).toBe(405);
});

test("a full disk, unread logs and a hold that nobody lifted are named, each by the probe whose they are", async () => {
  using dir = tempDir("probes-named");
  await using broker = await startBroker(dir.path);
  const lockFile = join(dir.path, "up.lock");
  acquireLock(lockFile, "test");
  const guard = (minFreeBytes: number) =>
    new StoreGuard({ dir: dir.path, minFreeBytes, restart: () => Promise.resolve(), log: () => undefined });
  const well: Checked = {
    nc: broker.bus.nc,
    jsm: broker.bus.jsm,
    store: guard(1),
    campaigns: { unread: 0 },
    scheduler: { wakeAt: () => 1_000 },
  };
  let now = 1_000;
  const failed = async (with_: Partial<Checked>) => {
    const { livez, readyz } = probes(
      lockFile,
      () => ({ ...well, ...with_ }),
      () => now,
    );
    const names = async (checks: ReturnType<typeof livez>) =>
      [...(await probeAnswer("p", checks, true)).text.matchAll(/\[-\](\S+) failed: (.*)/g)].map(([, name, why]) => `${name}: ${why}`);
    return { live: await names(livez()), ready: await names(readyz()) };
  };
  expect(await failed({})).toEqual({ live: [], ready: [] });
  expect(await failed({ store: guard(2 ** 60) })).toEqual({ live: [], ready: [like(/^store: the disk of .* is full/)] });
  expect(await failed({ campaigns: { unread: 3 } })).toEqual({
    live: [],
    ready: [like(/^logs: the logs of 3 campaigns/)],
  });
  now += 70_000;
  const late = like(/^scheduler: a hold ended 70 s ago/);
  expect(await failed({})).toEqual({ live: [late], ready: [late] });
});

test("a check that throws, or hangs, has failed, and its words stay on one line", async () => {
  const checks = [
    { name: "a", look: () => Promise.reject(new Error("two\nlines")) },
    { name: "b", look: () => new Promise<null>(() => undefined) },
  ];
  expect(await probeAnswer("readyz", checks, false)).toEqual({
    status: 503,
    text: "[-]a failed: two lines\n[-]b failed: no answer within 800 ms\nreadyz check failed\n",
  });
});

test("an address is HOST:PORT, and a port that is taken is said so", async () => {
  expect(ListenAddress.parse("[::]:9464")).toEqual({ host: "::", port: 9464 });
  expect(ListenAddress.parse("0.0.0.0:0")).toEqual({ host: "0.0.0.0", port: 0 });
  for (const bad of ["9464", "localhost", ":1", "h:70000", "http://h:1"]) expect(ListenAddress.safeParse(bad).success).toBe(false);
  await using first = await HttpListener.open(listen, new Map());
  await expect(HttpListener.open({ ...listen, port: first.port }, new Map())).rejects.toThrow(/--http 127\.0\.0\.1:\d+: the port is taken/);
});

test("a request that is none ends nothing", async () => {
  await using http = await HttpListener.open(listen, new Map([["/livez", { checks: () => [] }]]));
  const port = await answerProbes(listen, { data: "/" });
  for (const at of [http.port, port]) {
    const status = await new Promise((resolve, reject) => {
      request({ host: "127.0.0.1", port: at, path: "//" }, (r) => resolve(r.resume().statusCode))
        .on("error", reject)
        .end();
    });
    expect(status).toBe(404);
    expect((await ask(at, "/livez")).status).toBe(200);
  }
});

/** Inodes of sockets on which this process listens for TCP. */
function listening(pid: number): string[] {
  const open = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
      } catch {
        return [];
      }
    }),
  );
  const rows = ["tcp", "tcp6"].flatMap((file) => readFileSync(`/proc/${pid}/net/${file}`, "utf8").trim().split("\n").slice(1));
  const LISTEN = "0A";
  return rows.map((row) => row.trim().split(/\s+/)).flatMap((c) => (c[3] === LISTEN && open.has(`socket:[${c[9]}]`) ? [c[1] ?? ""] : []));
}

test.skipIf(process.platform !== "linux")("no port is open unless it is asked for, then one; bad addresses are bad input", async () => {
  using dir = tempDir("probes-up");
  for (const [env, ports] of [
    [{}, 0],
    [{ VIBESERVE_HTTP: "127.0.0.1:0" }, 1],
  ] as const) {
    const site = new Site(join(dir.path, String(ports)), env);
    try {
      const up = site.run("up");
      await up.printed(/coordinator ready/);
      expect(listening(up.child.pid ?? 0)).toHaveLength(ports);
      if (ports === 0) continue;
      const logged = /"event":"http.listening","port":(\d+)/.exec(readFileSync(join(site.data, "logs", "coordinator.log"), "utf8"));
      const port = Number(logged?.[1]);
      await vi.waitFor(async () => expect(await ask(port, "/readyz")).toEqual({ status: 200, text: "ok\n" }));
      rmSync(join(site.data, "up.lock"));
      expect((await ask(port, "/livez")).status).toBe(503);
    } finally {
      await site.stop();
      site.cleanUp();
    }
  }
  const site = new Site(join(dir.path, "bad"));
  const up = site.run("up", "--http", "9464");
  expect(await up.ended).toBe(2);
  expect(up.err()).toMatch(/command line: http: "9464" is not HOST:PORT/);
});
