import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { atLeast, executable, fail, ok, ran, warn, which, type Check, type Finding, type Patient } from "./check.ts";

const LEAST = { node: "24", git: "2.28", nats: "2.11" };

/** Compiled, not run: enough to tell a compiler of C++20 with its library from one without. */
const CPP =
  "#include <bit>\n#include <concepts>\n#include <span>\n#include <vector>\nint main() { std::vector<int> v{8}; return std::bit_width(unsigned(std::span(v)[0])) == 4 ? 0 : 1; }\n";

export const INSTALLATION: readonly Check[] = [
  {
    name: "node-version",
    on: "both",
    look: async ({ execPath }) => {
      const { text, why } = await ran([execPath, "--version"]);
      if (why !== null) return fail(`${execPath}: ${why}`, "run the product's own: npm ci, or bin/vibeserve of the offline bundle");
      if (atLeast(text, LEAST.node)) return ok(`${text}, ${execPath}`);
      return fail(`${text}; sources run on ${LEAST.node} and later`, "npm ci (it brings Node 24), or bin/vibeserve of the offline bundle");
    },
  },
  {
    name: "installation",
    on: "both",
    look: ({ settings: { root } }) => {
      const missing = ["coordinator/src", "gpu-agent/src", "shared/src", "stacks", "prompts/skills"].filter(
        (path) => !existsSync(join(root, path)),
      );
      return missing.length === 0
        ? ok(root)
        : fail(`${root} lacks ${missing.join(", ")}`, `unset VIBESERVE_ROOT, or sh ${root}/install.sh (it checks every file of a bundle)`);
    },
  },
  {
    name: "git",
    on: "coordinator",
    look: async (at) => {
      const git = which(at, "git");
      if (git === null) return fail("git is not on PATH; candidates are its commits", "apt-get install git");
      const { text, why } = await ran([git, "--version"]);
      if (why === null && atLeast(text, LEAST.git)) return ok(`${text}, ${git}`);
      return fail(`${git}: ${why ?? text}; ${LEAST.git} is needed`, "apt-get install git");
    },
  },
  {
    name: "nats-server",
    on: "coordinator",
    look: async ({ settings: { natsServer } }) => {
      const { text, why } = executable(natsServer)
        ? await ran([natsServer, "--version"])
        : { text: "", why: "it is not there, or may not be run" };
      if (why === null && atLeast(text, LEAST.nats)) return ok(`${text}, ${natsServer}`);
      return fail(`${natsServer}: ${why ?? `${text}; ${LEAST.nats} is needed`}`, "npm start fetches it; or VIBESERVE_NATS_SERVER=FILE");
    },
  },
  { name: "compiler", on: "both", look: compiler },
  {
    name: "python",
    on: "both",
    look: async (at) => {
      const python = which(at, "python3");
      const fix = "apt-get install python3-venv (only baselines need it)";
      if (python === null) return warn("there is no python3 on PATH", fix);
      const { text, why } = await ran([python, "-c", "import ensurepip, sys, venv; print(sys.version.split()[0])"]);
      return why === null ? ok(`${text}, ${python}`) : warn(`${python} makes no virtual environments: ${why}`, fix);
    },
  },
  {
    name: "cache-folder",
    on: "both",
    look: ({ settings: { cache }, uid }) => {
      if (!existsSync(cache)) return warn(`${cache} is not there yet: the set-up makes it`, "npm start, or VIBESERVE_CACHE=DIR");
      const { uid: owner, mode } = statSync(cache);
      const writable = uid === 0 || (owner === uid ? (mode & 0o200) !== 0 : (mode & 0o002) !== 0);
      return writable
        ? ok(cache)
        : fail(`${cache} belongs to uid ${owner}, this is uid ${uid}: nothing can be cached`, `chown -R ${uid} ${cache}`);
    },
  },
];

async function compiler(at: Patient): Promise<Finding> {
  const [named, ...flags] = (at.env["CXX"] ?? "").split(/\s+/).filter((word) => word !== "");
  const program = ["c++", "g++", "clang++"].reduce<string | null>(
    (found, name) => found ?? which(at, name),
    named === undefined ? null : which(at, named),
  );
  const fix = "apt-get install g++ (12 or later), or bring the bundle's compiler archive";
  if (program === null) return fail("there is no C++ compiler on PATH", fix);
  const folder = mkdtempSync(join(tmpdir(), "vibeserve-doctor-"));
  try {
    const source = join(folder, "probe.cpp");
    writeFileSync(source, CPP);
    const { why } = await ran([program, ...flags, "-std=c++20", "-fsyntax-only", source], 60_000);
    return why === null ? ok(`${program} compiles C++20`) : fail(`${program} compiles no C++20: ${why}`, fix);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
