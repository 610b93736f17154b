import { existsSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../../process/temporary-folder.ts";
import { CXX20 } from "../../setup/compiler.ts";
import { OLDEST_GIT } from "../../setup/git.ts";
import { OLDEST_NATS_SERVER } from "../../setup/nats-server.ts";
import { atLeast, check, executable, fail, ofAgents, ok, ran, warn, which, type Check, type Finding, type Patient } from "./check.ts";

const LEAST = { node: "24", git: OLDEST_GIT, nats: OLDEST_NATS_SERVER };

export const INSTALLATION: readonly Check[] = [
  check("node-version", "both", async ({ execPath }) => {
    const { text, why } = await ran([execPath, "--version"]);
    if (why !== null) return fail(`${execPath}: ${why}`, "run the product's own: npm ci, or bin/vibeserve of the offline bundle");
    if (atLeast(text, LEAST.node)) return ok(`${text}, ${execPath}`);
    return fail(`${text}; sources run on ${LEAST.node} and later`, "npm ci (it brings Node 24), or bin/vibeserve of the offline bundle");
  }),
  check("installation", "both", ({ settings: { root } }) => {
    const missing = ["coordinator/src", "gpu-agent/src", "shared/src", "stacks", "prompts/skills"].filter(
      (path) => !existsSync(join(root, path)),
    );
    return missing.length === 0
      ? ok(root)
      : fail(`${root} lacks ${missing.join(", ")}`, `unset VIBESERVE_ROOT, or sh ${root}/install.sh (it checks every file of a bundle)`);
  }),
  check("git", "coordinator", async (at) => {
    const git = which(at, "git");
    if (git === null) return fail("git is not on PATH; candidates are its commits", "apt-get install git");
    const { text, why } = await ran([git, "--version"]);
    if (why === null && atLeast(text, LEAST.git)) return ok(`${text}, ${git}`);
    return fail(`${git}: ${why ?? text}; ${LEAST.git} is needed`, "apt-get install git");
  }),
  check("nats-server", "coordinator", async ({ settings: { natsServer } }) => {
    const { text, why } = executable(natsServer)
      ? await ran([natsServer, "--version"])
      : { text: "", why: "it is not there, or may not be run" };
    if (why === null && atLeast(text, LEAST.nats)) return ok(`${text}, ${natsServer}`);
    return fail(`${natsServer}: ${why ?? `${text}; ${LEAST.nats} is needed`}`, "npm start fetches it; or VIBESERVE_NATS_SERVER=FILE");
  }),
  ofAgents("compiler", compiler),
  ofAgents("python", async (at) => {
    const python = which(at, "python3");
    const fix = "apt-get install python3-venv (only baselines need it)";
    if (python === null) return warn("there is no python3 on PATH", fix);
    const { text, why } = await ran([python, "-c", "import ensurepip, sys, venv; print(sys.version.split()[0])"]);
    return why === null ? ok(`${text}, ${python}`) : warn(`${python} makes no virtual environments: ${why}`, fix);
  }),
  check("cache-folder", "both", ({ settings: { cache }, uid }) => {
    if (!existsSync(cache)) return warn(`${cache} is not there yet: the set-up makes it`, "npm start, or VIBESERVE_CACHE=DIR");
    const { uid: owner, mode } = statSync(cache);
    const writable = uid === 0 || (owner === uid ? (mode & 0o200) !== 0 : (mode & 0o002) !== 0);
    return writable
      ? ok(cache)
      : fail(`${cache} belongs to uid ${owner}, this is uid ${uid}: nothing can be cached`, `chown -R ${uid} ${cache}`);
  }),
];

async function compiler(at: Patient): Promise<Finding> {
  const [named, ...flags] = (at.env["CXX"] ?? "").split(/\s+/).filter((word) => word !== "");
  const found = [...(named === undefined ? [] : [named]), "c++", "g++", "clang++"].map((name) => which(at, name));
  const program = found.find((path) => path !== null) ?? null;
  const fix = "apt-get install g++ (12 or later), or bring the bundle's compiler archive";
  if (program === null) return fail("there is no C++ compiler on PATH", fix);
  using folder = temporaryFolder("doctor");
  const source = join(folder.path, "probe.cpp");
  writeFileSync(source, CXX20);
  const { why } = await ran([program, ...flags, "-std=c++20", "-fsyntax-only", source], 60_000);
  return why === null ? ok(`${program} compiles C++20`) : fail(`${program} compiles no C++20: ${why}`, fix);
}
