import { execFileSync } from "node:child_process";
import { appendFileSync, chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sha256, type ArtifactRef } from "@vibeserve/shared";
import { BuildCache } from "../../gpu-agent/src/build/build-cache.ts";
import { buildStack, type BuildDeps } from "../../gpu-agent/src/build/build-stack.ts";
import { ensureBuilt } from "../../gpu-agent/src/build/ensure-built.ts";
import { gitTreeHash } from "../../gpu-agent/src/build/git-tree-hash.ts";
import { readTar } from "../../gpu-agent/src/build/tar-reader.ts";
import type { TreeRef } from "../../gpu-agent/src/build/tree.ts";
import { findCompiler, type Compiler } from "../../gpu-agent/src/probe/compiler.ts";
import type { Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { startStack } from "../../gpu-agent/src/serve/start-stack.ts";
import { localArtifacts } from "./context-kit.ts";
import { bubblewrap, noSandbox } from "./kit.ts";
import { candidateFiles, MANIFEST, packed } from "./tree-kit.ts";

const root = mkdtempSync(join(tmpdir(), "vs-build-test-"));
const artifacts = localArtifacts(join(root, "artifacts"));
const model = join(root, "model.gguf");
let sandbox: Sandbox;
let compiler: Compiler | null;

beforeAll(async () => {
  writeFileSync(model, "weights");
  [sandbox, compiler] = await Promise.all([bubblewrap(), findCompiler(null)]);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

function deps(more: Partial<BuildDeps> = {}): BuildDeps {
  const cache = new BuildCache(join(root, "builds"));
  return {
    sandbox,
    compiler,
    artifacts,
    cache,
    signal: new AbortController().signal,
    progress: () => undefined,
    ...more,
  };
}

async function treeOf(files: Map<string, Uint8Array>): Promise<TreeRef & { tree: ArtifactRef }> {
  const { tar, treeDigest } = packed(files);
  return { tree: await artifacts.put(tar), treeDigest, provenance: "shipped" };
}

describe("a tree", () => {
  it("has the hash that git gives it", () => {
    const dir = join(root, "git");
    mkdirSync(join(dir, "core/deep"), { recursive: true });
    for (const [path, text] of Object.entries({ "core.txt": "a", "core/deep/x.h": "b", "core/a-b.cpp": "c", "z.sh": "#!/bin/sh\n" }))
      writeFileSync(join(dir, path), text);
    chmodSync(join(dir, "z.sh"), 0o755);
    const git = (...args: string[]): Buffer => execFileSync("git", ["-C", dir, "-c", "user.name=t", "-c", "user.email=t@t", ...args]);
    git("init", "-q");
    git("add", ".");
    git("commit", "-qm", "x");
    const hash = git("rev-parse", "HEAD^{tree}").toString().trim();
    expect(gitTreeHash(readTar(git("archive", "--format=tar", "HEAD")), "sha1")).toBe(hash);
  });

  it("with links, absolute or climbing paths, a second copy of a path or a broken header is refused before anything is written", () => {
    const { tar } = packed(new Map([["a.txt", Buffer.from("x")]]));
    const altered = (change: (b: Buffer) => void): Buffer => {
      const copy = Buffer.from(tar);
      change(copy);
      let sum = 0;
      for (let i = 0; i < 512; i++) sum += i >= 148 && i < 156 ? 32 : (copy[i] ?? 0);
      copy.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
      return copy;
    };
    expect(() => readTar(altered((b) => b.write("2", 156)))).toThrow(/not a plain file/);
    expect(() => readTar(altered((b) => b.write("/etc/cron.d/x\0", 0)))).toThrow(/not allowed/);
    expect(() => readTar(altered((b) => b.write("a/../../x\0", 0)))).toThrow(/not allowed/);
    expect(() => readTar(altered((b) => b.write("a\u001b[2J\0", 0)))).toThrow(/not allowed/);
    expect(() => readTar(Buffer.concat([tar.subarray(0, 1024), tar]))).toThrow(/twice/);
    const torn = Buffer.from(tar);
    torn[3] = 1;
    expect(() => readTar(torn)).toThrow(/checksum/);
    expect(() => readTar(tar.subarray(0, 1024))).toThrow(/no end/);
    expect(() => readTar(Buffer.alloc(40 * 2 ** 20))).toThrow(/over the limit/);
  });
});

describe("a build", () => {
  it("makes what stack.json says, is done once, and is served from its verified copy", async () => {
    const tree = await treeOf(candidateFiles("plain"));
    const first = await buildStack(deps(), tree);
    expect(first.cached).toBe(false);
    const second = await buildStack(deps(), tree);
    expect(second).toMatchObject({ cached: true, buildDigest: first.buildDigest });
    const server = await startStack(
      { sandbox },
      { buildDir: second.dir, modelPath: model, cpus: "0", healthTimeoutMs: 10_000, provenance: "shipped" },
    );
    expect(server.logTail()).toBe("");
    await server.stop();
    await server.exited;
  });

  it("a tampered cache entry is thrown away and built again, to the same digest", async () => {
    const tree = await treeOf(candidateFiles("plain"));
    const first = await buildStack(deps(), tree);
    appendFileSync(join(first.dir, "stack"), "evil");
    const again = await buildStack(deps(), tree);
    expect(again).toMatchObject({ cached: false, buildDigest: first.buildDigest });
    writeFileSync(join(first.dir, "extra.so"), "evil");
    expect((await buildStack(deps(), tree)).cached).toBe(false);
    const stack = { ...tree, buildDigest: first.buildDigest };
    expect(await ensureBuilt(deps(), stack)).toBe(again.dir);
    await expect(ensureBuilt(deps(), { ...stack, buildDigest: sha256("other") })).rejects.toMatchObject({
      attribution: "harness",
      code: "build-differs",
    });
  });

  it("that does not compile is the candidate's failure, with the first error in its log", async () => {
    const tree = await treeOf(candidateFiles("plain", { "main.cpp": "int main() { return kernel(); }\n" }));
    await expect(buildStack(deps(), tree)).rejects.toMatchObject({
      attribution: "candidate",
      code: "build-failed",
      message: "the build ended with exit code 1",
      logTail: expect.stringContaining("kernel") as string,
    });
  });

  it("that makes nothing, makes a link, or has a bad manifest, is the candidate's failure", async () => {
    const failing = async (more: Record<string, string>): Promise<unknown> => {
      const tree = await treeOf(candidateFiles("plain", more));
      return buildStack(deps(), tree).catch((e: unknown) => e);
    };
    expect(await failing({ "build.sh": "#!/bin/sh\nexit 0\n" })).toMatchObject({ attribution: "candidate", code: "build-no-output" });
    expect(await failing({ "build.sh": '#!/bin/sh\nln -s /etc/shadow "$2"\n' })).toMatchObject({
      attribution: "candidate",
      code: "build-bad-output",
    });
    expect(await failing({ "stack.json": JSON.stringify({ ...MANIFEST, network: true }) })).toMatchObject({
      code: "bad-manifest",
      message: expect.stringContaining("network") as string,
    });
    expect(await failing({ "stack.json": "{" })).toMatchObject({ attribution: "candidate", code: "bad-manifest" });
  });

  it("whose archive holds another tree than it claims is refused as the harness's fault", async () => {
    const tree = await treeOf(candidateFiles("plain", { "note.txt": "x" }));
    await expect(buildStack(deps(), { ...tree, treeDigest: "0".repeat(40) })).rejects.toMatchObject({
      attribution: "harness",
      code: "tree-mismatch",
    });
  });

  it("a build that would go online, write into its sources, or leave a child behind, can't", async () => {
    const listener = createServer().listen(0, "127.0.0.1");
    await new Promise((r) => listener.once("listening", r));
    let knocks = 0;
    listener.on("connection", () => knocks++);
    const port = (listener.address() as { port: number }).port;
    const script = [
      "#!/bin/bash",
      `(exec 3<>/dev/tcp/127.0.0.1/${port}) 2>/dev/null && echo ONLINE`,
      "echo x > /src/main.cpp && echo WROTE",
      'setsid sh -c \'sleep 0.3; while :; do echo evil > "$0.late"; sleep 0.1; done\' "$2" &',
      'printf "#!/bin/sh\\n" > "$2"; chmod +x "$2"; exit 0',
    ].join("\n");
    const tree = await treeOf(
      candidateFiles("plain", {
        "build.sh": script,
        "stack.json": JSON.stringify({ ...MANIFEST, build: ["bash", "build.sh", "${CXX}", "${OUT}"] }),
      }),
    );
    const built = await buildStack(deps(), tree);
    await new Promise((r) => setTimeout(r, 500));
    expect(readdirSync(built.dir).sort()).toEqual(["stack", "stack.json"]);
    expect(knocks).toBe(0);
    listener.close();
  });

  it("is stopped at once by its deadline", async () => {
    const tree = await treeOf(candidateFiles("plain", { "build.sh": "#!/bin/sh\nsleep 100\n" }));
    const abort = new AbortController();
    const building = buildStack(
      deps({ signal: abort.signal, progress: (p) => p === "compiling" && setTimeout(() => abort.abort(new Error("deadline")), 100) }),
      tree,
    );
    await expect(building).rejects.toThrow("deadline");
  });

  it("without a sandbox comes out the same as with one, and runs", async () => {
    const none = await noSandbox();
    const tree = await treeOf(candidateFiles("plain"));
    const inside = await buildStack(deps(), tree);
    const outside = await buildStack(deps({ sandbox: none, cache: new BuildCache(join(root, "other-builds")) }), tree);
    expect(outside.buildDigest).toBe(inside.buildDigest);
    const server = await startStack(
      { sandbox: none },
      { buildDir: outside.dir, modelPath: model, cpus: "0", healthTimeoutMs: 10_000, provenance: "shipped" },
    );
    expect(existsSync(server.socketPath)).toBe(true);
    await server.stop();
    expect(existsSync(dirname(server.socketPath))).toBe(false);
  });

  it("crash at start and hang at health are the candidate's own failures", async () => {
    const start = async (mode: string): Promise<unknown> => {
      const built = await buildStack(deps(), await treeOf(candidateFiles(mode)));
      return startStack({ sandbox }, { buildDir: built.dir, modelPath: model, cpus: "0", healthTimeoutMs: 600, provenance: "model" }).catch(
        (e: unknown) => e,
      );
    };
    expect(await start("crash")).toMatchObject({ name: "StackError", code: "exited-at-start", logTail: "no kernel for this machine\n" });
    expect(await start("hang")).toMatchObject({ name: "StackError", code: "health-timeout" });
  });

  it("that names a warm-up may take so much longer until it answers, and how long it took stands apart", async () => {
    const serve = ["sh", "-c", 'sleep 0.9; exec "$0" "$@"', ...MANIFEST.serve];
    const start = async (more: object) => {
      const files = candidateFiles("plain", { "stack.json": JSON.stringify({ ...MANIFEST, serve, ...more }) });
      const { dir } = await buildStack(deps(), await treeOf(files));
      return startStack({ sandbox }, { buildDir: dir, modelPath: model, cpus: "0", healthTimeoutMs: 300, provenance: "shipped" });
    };
    await expect(start({})).rejects.toMatchObject({ code: "health-timeout" });
    const stack = await start({ warmup: { seconds: 30 } });
    expect(stack.warmupS).toBeGreaterThan(0.8);
    await stack.stop();
  });
});
