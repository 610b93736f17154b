import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BootstrapError } from "./bootstrap-error.mjs";
import { holdInstallLock } from "./install-lock.mjs";
import { npm } from "./npm.mjs";

/**
 * Brings node_modules in step with package-lock.json. Nothing happens, and no network is touched, when it is already.
 * A stale one is set aside while npm works, and put back if npm fails: a start without a network must not cost what was there.
 */
export async function ensurePackages(root) {
  if (isFresh(root)) return;
  const release = await holdInstallLock(root);
  try {
    if (isFresh(root)) return; // another start did it while this one waited
    await install(root);
  } finally {
    release();
  }
}

async function install(root) {
  const modules = join(root, "node_modules");
  const previous = join(root, ".vibeserve-install", "previous-node_modules");
  const had = existsSync(modules);
  console.error(
    `set-up: npm packages … installing (node_modules is ${had ? "out of step with package-lock.json" : "missing"}; about a minute)`,
  );
  rmSync(previous, { recursive: true, force: true });
  if (had) renameSync(modules, previous);
  try {
    const retries = ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=10000"];
    await npm(root, "npm packages", ["ci", "--include=dev", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error", ...retries]);
    writeStamp(root);
  } catch (error) {
    if (had) {
      rmSync(modules, { recursive: true, force: true });
      renameSync(previous, modules);
    }
    throw error;
  }
  rmSync(previous, { recursive: true, force: true });
}

function isFresh(root) {
  const stamp = readText(stampPath(root));
  if (stamp === currentStamp(root)) return true;
  if (stamp !== undefined && !stamp.startsWith(platform())) return false;
  if (!hiddenLockAgrees(root)) return false;
  writeStamp(root); // someone ran npm by hand, and rightly
  return true;
}

/** npm writes node_modules/.package-lock.json last, with what it really installed. */
function hiddenLockAgrees(root) {
  const installed = readText(join(root, "node_modules/.package-lock.json"));
  if (installed === undefined) return false;
  const have = JSON.parse(installed).packages;
  return Object.entries(lock(root).packages).every(([place, wanted]) => {
    if (!place.startsWith("node_modules/")) return true;
    const got = have[place];
    if (got === undefined) return wanted.optional === true || wanted.devOptional === true || wanted.peer === true;
    return got.version === wanted.version && got.integrity === wanted.integrity;
  });
}

const platform = () => `${process.platform}-${process.arch} `;
const stampPath = (root) => join(root, "node_modules/.vibeserve-stamp");
const currentStamp = (root) => platform() + createHash("sha256").update(lockText(root)).digest("hex");

function writeStamp(root) {
  mkdirSync(join(root, "node_modules"), { recursive: true });
  writeFileSync(stampPath(root), currentStamp(root));
}

/** The lock file, parsed. */
export function lock(root) {
  return JSON.parse(lockText(root));
}

function lockText(root) {
  const text = readText(join(root, "package-lock.json"));
  if (text === undefined)
    throw new BootstrapError(
      "npm packages",
      `${join(root, "package-lock.json")} is missing`,
      "restore it: `git checkout -- package-lock.json`",
    );
  return text;
}

function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
