import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { start, type Running } from "./run-process.ts";
import { writeExecutable } from "./fake-python.ts";

const repository = join(import.meta.dirname, "../..");

/** Stands where the product's main.ts stands: says what it was given, and lives on for the verb `wait`. */
const standIn = `
const args: string[] = process.argv.slice(2);
console.log("main", process.version.split(".")[0], JSON.stringify(args), process.stdin.isTTY === true);
if (args[0] === "wait") {
  let interrupts = 0;
  process.on("SIGINT", () => {
    interrupts += 1;
    console.log("interrupt", interrupts);
    if (interrupts === 2) process.exit(7);
  });
  process.on("SIGTERM", () => {
    console.log("terminated");
    process.exit(9);
  });
  setInterval(() => undefined, 1000);
  console.log("ready");
} else if (args[0] === "abort") process.abort();
else process.exitCode = 3;
`;

/** A copy of the product's bin folder in a repository of its own, whose main.ts is a stand-in and whose npm is a script. */
export interface FakeRepository {
  root: string;
  /** A process's environment in it: PATH has the fake npm and the system's shell tools. */
  env: Record<string, string>;
  bootstrap: (...args: string[]) => Running;
}

/**
 * Makes one. `npm` is a shell script, whose `install_modules` makes a good node_modules and whose `$calls` is a file to count calls in;
 * without it there is no npm on PATH. `installed: true` starts with a node_modules that fits the lock file.
 */
export function fakeRepository(root: string, options: { npm?: string; installed?: boolean } = {}): FakeRepository {
  cpSync(join(repository, "coordinator/bin"), join(root, "coordinator/bin"), { recursive: true });
  mkdirSync(join(root, "coordinator/src"), { recursive: true });
  writeFileSync(join(root, "coordinator/src/main.ts"), standIn);
  writeFileSync(join(root, "package.json"), '{ "type": "module" }');
  writeLock(root, "1.0.0");
  if (options.installed === true) writeModules(root, "1.0.0");
  const bin = join(root, "path");
  mkdirSync(bin);
  symlinkSync(process.execPath, join(bin, "node"));
  const prepared = join(root, "prepared");
  writeModules(prepared, "1.0.0");
  const install = `install_modules() { cp -R "${prepared}/node_modules" ./node_modules; }`;
  if (options.npm !== undefined) writeExecutable(bin, "npm", `#!/bin/sh\ncalls="${root}/npm-calls"\n${install}\n${options.npm}\n`);
  const env = { PATH: options.npm === undefined ? bin : `${bin}:/usr/bin:/bin`, HOME: root };
  return { root, env, bootstrap: (...args) => start([process.execPath, join(root, "coordinator/bin/bootstrap.mjs"), ...args], env, root) };
}

/** A lock file that wants one package, \`left\`, in this version, and Node. */
export function writeLock(root: string, version: string): void {
  const packages = {
    "": { name: "fake" },
    "node_modules/left": { version, integrity: `sha512-${version}` },
    "node_modules/node": { version: "24.0.0", integrity: "sha512-node" },
  };
  writeFileSync(join(root, "package-lock.json"), JSON.stringify({ lockfileVersion: 3, packages }));
}

/** What npm leaves after it installed that lock file, with this process's Node as the binary. */
function writeModules(root: string, version: string): void {
  mkdirSync(root, { recursive: true });
  const modules = join(root, "node_modules");
  mkdirSync(join(modules, "left"), { recursive: true });
  writeFileSync(join(modules, "left/version"), version);
  const node = join(modules, "node/bin/node");
  mkdirSync(dirname(node), { recursive: true });
  symlinkSync(process.execPath, node);
  mkdirSync(join(modules, ".bin"));
  symlinkSync("../node/bin/node", join(modules, ".bin/node"));
  const packages = {
    "node_modules/left": { version, integrity: `sha512-${version}` },
    "node_modules/node": { version: "24.0.0", integrity: "sha512-node" },
  };
  writeFileSync(join(modules, ".package-lock.json"), JSON.stringify({ lockfileVersion: 3, packages }));
}
