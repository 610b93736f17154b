import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, linkSync, lstatSync, mkdirSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { BootstrapError } from "./bootstrap-error.mjs";
import { npm } from "./npm.mjs";
import { lock } from "./packages.mjs";

/** The sources are TypeScript that Node runs directly; Node 24 is the first long-term release that does so without a flag. */
const wantedMajor = 24;

/**
 * The Node that runs the product: npm's package `node`, at node_modules/.bin/node. Its binary is fetched by an install script, which an npm
 * with `ignore-scripts`, or one that asks for approval, skips; then the binary's own package is installed here. The Node that runs this
 * is the last resort, when it is new enough.
 */
export async function ensurePinnedNode(root) {
  const pinned = join(root, "node_modules/.bin/node");
  if (majorOf(pinned) >= wantedMajor) return pinned;
  const failure = await repair(root, pinned).then(
    () => undefined,
    (error) => error,
  );
  if (majorOf(pinned) >= wantedMajor) return pinned;
  if (Number(process.versions.node.split(".")[0]) >= wantedMajor) return process.execPath;
  throw failure instanceof BootstrapError
    ? failure
    : new BootstrapError(
        "Node 24",
        `npm's package \`node\` brought no working binary for ${process.platform}-${process.arch}${failure ? ` (${failure.message})` : ""}`,
        `install Node ${wantedMajor} or newer yourself and start again`,
      );
}

async function repair(root, pinned) {
  const name = `${process.platform === "darwin" && process.arch === "arm64" ? "node-bin" : "node"}-${process.platform}-${process.arch}`;
  const version = lock(root).packages["node_modules/node"].version;
  const prefix = join(root, "node_modules/.cache/node-binary");
  const wanted = [
    "install",
    "--no-save",
    "--no-package-lock",
    "--no-audit",
    "--no-fund",
    "--ignore-scripts",
    "--loglevel=error",
    "--prefix",
    prefix,
    `${name}@${version}`,
  ];
  mkdirSync(prefix, { recursive: true });
  await npm(root, `Node ${version}`, wanted);
  const target = join(root, "node_modules/node/bin/node");
  mkdirSync(dirname(target), { recursive: true });
  rmSync(target, { force: true });
  place(join(prefix, "node_modules", name, "bin/node"), target);
  chmodSync(target, 0o755);
  if (existsSync(pinned)) return;
  if (lstatSync(pinned, { throwIfNoEntry: false }) !== undefined) rmSync(pinned);
  symlinkSync("../node/bin/node", pinned);
}

function place(from, to) {
  try {
    linkSync(from, to);
  } catch {
    copyFileSync(from, to);
  }
}

function majorOf(node) {
  const { stdout } = spawnSync(node, ["--version"], { encoding: "utf8" });
  return Number(/^v(\d+)\./.exec(stdout ?? "")?.[1] ?? 0);
}
