import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Outcome, type ExecSpec } from "@vibeserve/shared";
import { findCompiler, type Compiler } from "../../gpu-agent/src/probe/compiler.ts";
import { readTable } from "../../gpu-agent/src/process/proc-table.ts";
import type { Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { execHandler } from "../../gpu-agent/src/worker/exec.job.ts";
import type { JobContext } from "../../gpu-agent/src/worker/job-context.ts";
import { jobContext, jobOf, localArtifacts } from "./context-kit.ts";
import { bubblewrap, noSandbox } from "./kit.ts";
import { packed } from "./tree-kit.ts";

const root = mkdtempSync(join(tmpdir(), "vs-exec-test-"));
const temporary = process.env["TMPDIR"];
const artifacts = localArtifacts(join(root, "artifacts"));
let sandbox: Sandbox;
let compiler: Compiler | null;

beforeAll(async () => {
  [sandbox, compiler] = await Promise.all([bubblewrap(), findCompiler(null)]);
  // What the handler leaves behind would lie in here.
  process.env["TMPDIR"] = root;
});
afterAll(() => {
  if (temporary === undefined) delete process.env["TMPDIR"];
  else process.env["TMPDIR"] = temporary;
  rmSync(root, { recursive: true, force: true });
});

type Ran = Extract<Outcome, { status: "ran" }>;

const FILES = { "main.cpp": "int main() { return 7; }\n", "sub/note.txt": "a note\n" };

async function specOf(argv: string[], more: Partial<ExecSpec> = {}): Promise<ExecSpec> {
  const { tar, treeDigest } = packed(new Map(Object.entries(FILES).map(([path, text]) => [path, Buffer.from(text)])));
  return { kind: "exec", tree: await artifacts.put(tar), treeDigest, provenance: "model", argv, limitMs: 20_000, ...more };
}

/** Runs it, and looks that nothing is left of it. */
async function exec(argv: string[], more: Partial<ExecSpec> = {}, context: Partial<JobContext> = {}): Promise<Ran> {
  const outcome = await execHandler({ compiler })(jobOf(await specOf(argv, more)), jobContext(sandbox, artifacts, context));
  expect(readdirSync(root).filter((name) => name.startsWith("vs-exec-"))).toEqual([]);
  const parsed = Outcome.parse(outcome);
  if (parsed.status !== "ran") throw new Error(parsed.status);
  return parsed;
}

const sh = (script: string, more: Partial<ExecSpec> = {}): Promise<Ran> => exec(["bash", "-c", script], more);

const processesWith = (mark: string): number =>
  readTable().filter((p) => {
    try {
      return p.state !== "Z" && readFileSync(`/proc/${p.pid}/cmdline`, "latin1").includes(mark);
    } catch {
      return false;
    }
  }).length;

it("a command sees the tree, writes into it at any depth, and compiles and runs what it finds there", async () => {
  const ran = await sh(
    "cat sub/note.txt; echo more >> sub/note.txt; tail -1 sub/note.txt; $CXX -o sub/out main.cpp && sub/out; echo $?; ls",
  );
  expect(ran).toMatchObject({ status: "ran", exitCode: 0, timedOut: false, stdout: "a note\nmore\n7\nmain.cpp\nsub\n", stderr: "" });
  expect(ran.seconds).toBeGreaterThan(0);
  // Each has a copy of its own.
  expect((await sh("cat sub/note.txt")).stdout).toBe("a note\n");
});

it("a nonzero exit, a signal and a program that is not there are answers, not failures", async () => {
  expect(await sh("echo said; echo why >&2; exit 3")).toMatchObject({ exitCode: 3, timedOut: false, stdout: "said\n", stderr: "why\n" });
  expect(await sh("kill -SEGV $$")).toMatchObject({ exitCode: null, timedOut: false });
  expect(await exec(["no-such-program"])).toMatchObject({ exitCode: 127, stderr: expect.stringContaining("no-such-program") as string });
});

it("at its limit the whole tree is stopped, also what left its session, and what it had said is kept", async () => {
  const mark = `vs-mark-${process.pid}-${Date.now()}`;
  const script = `echo before; (setsid sh -c 'sleep 300; : ${mark}' &) ; sh -c 'trap "" TERM; sleep 300; : ${mark}' & sleep 300; : ${mark}`;
  const ran = await sh(script, { limitMs: 700 });
  expect(ran).toMatchObject({ exitCode: null, timedOut: true, stdout: "before\n" });
  expect(processesWith(mark)).toBe(0);
  // A child that outlives the command is stopped as well, and is no reason to wait.
  expect(await sh(`setsid sh -c 'sleep 300; : ${mark}' & exit 0`)).toMatchObject({ exitCode: 0, timedOut: false });
  expect(processesWith(mark)).toBe(0);
});

it("it has no network, and sees neither this machine's folders nor weights", async () => {
  const secret = join(root, "secret");
  writeFileSync(secret, "evaluator");
  const listener = createServer().listen(0, "127.0.0.1");
  await new Promise((r) => listener.once("listening", r));
  let knocks = 0;
  listener.on("connection", () => knocks++);
  const port = (listener.address() as { port: number }).port;
  const ran = await sh(
    `(exec 3<>/dev/tcp/127.0.0.1/${port}) 2>/dev/null && echo ONLINE; cat ${secret} 2>/dev/null && echo READ; ` +
      `ls -d ${root} /root /home /model /stack 2>/dev/null; echo x > /usr/x 2>/dev/null && echo WROTE; echo end`,
  );
  expect(ran).toMatchObject({ exitCode: 0, stdout: "end\n" });
  expect(knocks).toBe(0);
  listener.close();
});

it("of a flood the end is kept, bounded in bytes, and nothing in it can steer a terminal", async () => {
  const flood = await sh(
    "head -c 30000000 /dev/zero | tr '\\0' 'x'; printf '\\nünd\\n%.0s' {1..4000}; echo last; yes err 2>/dev/null | head -c 1000000 >&2",
  );
  expect(flood).toMatchObject({
    exitCode: 0,
    stdout: expect.stringMatching(/ünd\n+last\n$/) as string,
    stderr: expect.stringMatching(/err\nerr\n$/) as string,
  });
  expect(Buffer.byteLength(flood.stdout)).toBeLessThanOrEqual(16_000);
  expect(Buffer.byteLength(flood.stdout)).toBeGreaterThan(15_000);
  expect(flood.stdout).not.toContain("\ufffd");
  expect(Buffer.byteLength(flood.stderr)).toBeLessThanOrEqual(16_000);
  const escapes = await sh(String.raw`printf 'a\033[31mred\033[0m\033]0;title\007b\000c\n'`);
  expect(escapes.stdout).toBe("aredbc\n");
});

it("processes, memory and disk are bounded; what a bound stopped is told by name", async () => {
  const forks = await sh("for i in {1..200}; do sleep 5 & done; jobs -r | wc -l", { limitMs: 2_500 });
  expect(forks.stderr).toMatch(/fork/);
  const disk = await sh("mkdir d; i=0; while :; do head -c 100000000 /dev/zero > d/$i || exit 9; i=$((i+1)); done");
  expect(disk).toMatchObject({
    exitCode: null,
    timedOut: false,
    stderr: expect.stringContaining("stopped: it wrote more than 512 MiB") as string,
  });
});

it("a job that is over stops its command, and throws why", async () => {
  const abort = new AbortController();
  const running = exec(
    ["sleep", "300"],
    {},
    { signal: abort.signal, progress: (p) => p.startsWith("running") && setTimeout(() => abort.abort(new Error("lease lost")), 100) },
  );
  await expect(running).rejects.toThrow("lease lost");
  expect(readdirSync(root).filter((name) => name.startsWith("vs-exec-"))).toEqual([]);
});

it("without a sandbox a model's command does not run, and one that ships with the product does", async () => {
  const none = await noSandbox();
  const touched = join(tmpdir(), `vs-touched-${process.pid}`);
  await expect(exec(["touch", touched], {}, { sandbox: none })).rejects.toMatchObject({ name: "SandboxRefused" });
  expect(existsSync(touched)).toBe(false);
  expect(await exec(["cat", "sub/note.txt"], { provenance: "shipped" }, { sandbox: none })).toMatchObject({
    exitCode: 0,
    stdout: "a note\n",
  });
});

it("another tree than the one that was named is refused as the harness's fault", async () => {
  await expect(exec(["true"], { treeDigest: "0".repeat(40) })).rejects.toMatchObject({ attribution: "harness", code: "tree-mismatch" });
});
