import { existsSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { tempDir } from "../kit/temp-dir.ts";
import { fakeRepository, writeLock } from "./bootstrap-kit.ts";
import { killGroup, start } from "./run-process.ts";

let dir: ReturnType<typeof tempDir>;
beforeEach(() => (dir = tempDir("bootstrap")));
afterEach(() => dir[Symbol.dispose]());

const calls = (root: string): string[] =>
  existsSync(join(root, "npm-calls")) ? readFileSync(join(root, "npm-calls"), "utf8").trim().split("\n") : [];
const recordAndInstall = 'echo "$1" >> "$calls"\ninstall_modules';

describe("packages", () => {
  it("are installed when missing, once, and not looked at again while the lock file stays", async () => {
    const repository = fakeRepository(dir.path, { npm: recordAndInstall });
    const first = await repository.bootstrap("start").ended;
    expect(first.text).toMatch(/set-up: npm packages … ok \(\d+\.\d s\)/);
    expect(first.text).toContain('main v24 ["start"]');
    expect((await repository.bootstrap("start").ended).text).not.toContain("set-up");
    expect(calls(dir.path)).toEqual(["ci"]);
  });

  it("that fit the lock file are used as they are, without npm, whoever installed them", async () => {
    const repository = fakeRepository(dir.path, { installed: true });
    expect((await repository.bootstrap("start").ended).text).toContain('main v24 ["start"]');
  });

  it("are installed anew when the lock file has changed", async () => {
    const repository = fakeRepository(dir.path, { npm: recordAndInstall, installed: true });
    await repository.bootstrap("start").ended;
    writeLock(dir.path, "2.0.0");
    const { text } = await repository.bootstrap("start").ended;
    expect(text).toContain("node_modules is out of step with package-lock.json");
    expect(calls(dir.path)).toEqual(["ci"]);
  });

  it("that cannot be renewed without a network are kept, and the message has the cause and the fix", async () => {
    const npm = 'rm -rf node_modules/left\necho "npm error code ENOTFOUND" >&2\nexit 1';
    const repository = fakeRepository(dir.path, { npm, installed: true });
    writeLock(dir.path, "2.0.0");
    const { code, text } = await repository.bootstrap("start").ended;
    expect(code).toBe(2);
    expect(text).toContain("set-up failed at npm packages: no network: the npm registry cannot be reached (npm says: code ENOTFOUND)");
    expect(text).toContain("fix: connect this machine to the network");
    expect(readFileSync(join(dir.path, "node_modules/left/version"), "utf8")).toBe("1.0.0");
  });

  it.each([
    ["npm error code ENOSPC", "the disk is full"],
    ["npm error code EINTEGRITY", "does not have the digest that package-lock.json pins"],
    ["npm error code EUSAGE", "package.json and package-lock.json do not agree"],
    ["npm error something else", "npm ended with exit code 1"],
  ])("npm's `%s` becomes: %s", async (said, meaning) => {
    const repository = fakeRepository(dir.path, { npm: `echo "${said}" >&2\nexit 1` });
    const { code, text } = await repository.bootstrap("start").ended;
    expect(code).toBe(2);
    expect(text).toContain(meaning);
    expect(text).toContain("\n  fix: ");
  });

  it("without an npm on PATH the message says so", async () => {
    const { code, text } = await fakeRepository(dir.path).bootstrap("start").ended;
    expect(code).toBe(2);
    expect(text).toContain("there is no `npm` on PATH");
  });

  it("two starts at once install once, and both run", async () => {
    const npm = `while [ ! -e gate ]; do sleep 0.05; done\n${recordAndInstall}`;
    const repository = fakeRepository(dir.path, { npm });
    const first = repository.bootstrap("a");
    await first.says("installing");
    const second = repository.bootstrap("b");
    await second.says(`waiting for process ${first.child.pid ?? 0}, which installs them here`);
    writeFileSync(join(dir.path, "gate"), "");
    expect((await first.ended).text).toContain('main v24 ["a"]');
    expect((await second.ended).text).toContain('main v24 ["b"]');
    expect(calls(dir.path)).toEqual(["ci"]);
  });

  it("a start that was killed while it installed does not block the next", async () => {
    const repository = fakeRepository(dir.path, { npm: 'echo "$1" >> "$calls"\n[ -e gate ] || exec sleep 60\ninstall_modules' });
    const killed = repository.bootstrap("start");
    await killed.says("installing");
    killGroup(killed.child.pid);
    await killed.ended;
    writeFileSync(join(dir.path, "gate"), "");
    expect((await repository.bootstrap("start").ended).text).toContain('main v24 ["start"]');
    expect(readdirSync(join(dir.path, ".vibeserve-install"))).not.toContain("lock");
  });
});

describe("Node 24", () => {
  it("an older Node than 20 ends with a sentence and what to do", async () => {
    const { root, env } = fakeRepository(dir.path, { installed: true });
    const old = 'data:text/javascript,Object.defineProperty(process, "versions", { value: { node: "18.20.4" } })';
    const { code, text } = await start([process.execPath, "--import", old, join(root, "coordinator/bin/bootstrap.mjs"), "start"], env)
      .ended;
    expect(code).toBe(2);
    expect(text).toMatch(
      /^vibeserve: Node 18\.20\.4 is too old: set-up needs Node 20 or newer with npm.*\n {2}fix: install a current Node/,
    );
  });

  it("whose install script was not allowed to run is fetched as its own package and put in place", async () => {
    const binary = `node-${process.platform}-${process.arch}`;
    const npm = `echo "$*" >> "$calls"
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/node_modules/${binary}/bin" && ln -s "${process.execPath}" "$2/node_modules/${binary}/bin/node"`;
    const repository = fakeRepository(dir.path, { npm, installed: true });
    rmSync(join(dir.path, "node_modules/node/bin/node"));
    const { text } = await repository.bootstrap("start").ended;
    expect(calls(dir.path)[0]).toMatch(new RegExp(`^install .*${binary}@24\\.0\\.0$`));
    expect(text).toContain('main v24 ["start"]');
    expect((await repository.bootstrap("start").ended).text).not.toContain("set-up");
  });
});

describe("the verb", () => {
  it("gets its arguments and its exit code is passed on", async () => {
    const { code, text } = await fakeRepository(dir.path, { installed: true }).bootstrap("start", "--budget", "5m", "a b").ended;
    expect(text).toContain('main v24 ["start","--budget","5m","a b"]');
    expect(code).toBe(3);
  });

  it("that dies by a signal gives the code that a shell gives", async () => {
    expect((await fakeRepository(dir.path, { installed: true }).bootstrap("abort").ended).code).toBe(134);
  });

  it("sees one interrupt for a Ctrl-C that arrives several times, and a second for the next", async () => {
    const running = fakeRepository(dir.path, { installed: true }).bootstrap("wait");
    await running.says("ready");
    for (let i = 0; i < 3; i++) process.kill(-(running.child.pid ?? 0), "SIGINT"); // a terminal signals the whole group
    await running.says("interrupt 1");
    await pause(500); // a person's second press: later than the span within which several are one
    running.child.kill("SIGINT");
    const { code, text } = await running.ended;
    expect(text.match(/interrupt \d/g)).toEqual(["interrupt 1", "interrupt 2"]);
    expect(code).toBe(7);
  });

  it("is terminated with the bootstrap, also when that is killed outright", async () => {
    const repository = fakeRepository(dir.path, { installed: true });
    const asked = repository.bootstrap("wait");
    await asked.says("ready");
    asked.child.kill("SIGTERM");
    expect(await asked.ended).toMatchObject({ code: 9 });
    const killed = repository.bootstrap("wait");
    await killed.says("ready");
    killed.child.kill("SIGKILL");
    await killed.says("terminated");
  });

  const byNpm = { npm_command: "exec", npm_lifecycle_script: "vibeserve" };
  const line = (entry: string): string => `"${process.execPath}" coordinator/bin/${entry}.mjs wait; exit 1`;

  it("is terminated with the shell that npm runs it by, which a SIGTERM to npm ends alone", async () => {
    const { root, env } = fakeRepository(dir.path, { installed: true });
    for (const entry of ["bootstrap", "vibeserve"]) {
      const running = start(["/bin/sh", "-c", line(entry)], { ...env, ...byNpm }, root);
      await running.says("ready");
      running.child.kill("SIGTERM");
      await running.says("terminated");
    }
  });

  it.each([
    ["without npm", {}],
    ["where a person's shell came from npm", { ...byNpm, npm_lifecycle_script: "bash" }],
    ["where npm's script puts it into the background", { ...byNpm, npm_lifecycle_script: "vibeserve up >log 2>&1 & vibeserve submit" }],
    ["where npm's script takes it out of its session", { ...byNpm, npm_lifecycle_script: "setsid -f vibeserve up" }],
  ])("stays when its parent goes: %s", async (_where, more) => {
    const { root, env } = fakeRepository(dir.path, { installed: true });
    const alone = start(["/bin/sh", "-c", line("vibeserve")], { ...env, ...more }, root);
    await alone.says("ready");
    alone.child.kill("SIGTERM");
    const terminated = alone.says("terminated").then(() => true);
    expect(await Promise.race([terminated, pause(1_500, false)])).toBe(false);
    killGroup(alone.child.pid);
  });

  it("stops in its own order when a service manager or a terminal tells npm's shell and it at once", async () => {
    const { root, env } = fakeRepository(dir.path, { installed: true });
    const signals = join(import.meta.dirname, "../../coordinator/src/cli/stop-signal.ts");
    const slow = `
import { aborted, stopSignal } from ${JSON.stringify(signals)};
const stop = stopSignal();
setInterval(() => undefined, 1000);
console.log("ready");
await aborted(stop);
setTimeout(() => {
  console.log("stopped in order");
  process.exit(0);
}, 1_500);
`;
    writeFileSync(join(root, "coordinator/src/main.ts"), slow);
    for (const entry of ["bootstrap", "vibeserve"]) {
      const running = start(["/bin/sh", "-c", line(entry)], { ...env, ...byNpm }, root);
      await running.says("ready");
      process.kill(-(running.child.pid ?? 0), "SIGTERM");
      await running.says("stopped in order");
    }
  });

  it("runs the same through `vibeserve`, as npx starts it", async () => {
    const { root, env } = fakeRepository(dir.path, { installed: true });
    symlinkSync(join(root, "coordinator/bin/vibeserve.mjs"), join(root, "path/vibeserve"));
    const { code, text } = await start([join(root, "path/vibeserve"), "campaigns", "--json"], {
      ...env,
      PATH: `${env["PATH"] ?? ""}:/usr/bin:/bin`,
    }).ended;
    expect(text).toContain('main v24 ["campaigns","--json"]');
    expect(code).toBe(3);
  });
});
