import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** How often a waiting start looks whether the other has finished. */
const pollMs = 250;

/**
 * Waits until no other start installs into this folder, then holds the lock; returns its release. npm has no lock of its own, and two
 * `npm ci` at once leave half a node_modules. The lock is a folder that appears whole (a rename), holding its owner's process id; the
 * lock of a process that is gone is taken over.
 */
export async function holdInstallLock(root) {
  const folder = join(root, ".vibeserve-install");
  const held = join(folder, "lock");
  const mine = join(folder, `lock.${process.pid}`);
  mkdirSync(mine, { recursive: true });
  writeFileSync(join(mine, "pid"), String(process.pid));
  for (let told = false; !tryRename(mine, held);) {
    const owner = ownerOf(held);
    if (owner !== undefined && !isAlive(owner)) {
      removeDead(folder, held, owner);
      continue;
    }
    if (!told && owner !== undefined) console.error(`set-up: npm packages … waiting for process ${owner}, which installs them here`);
    told ||= owner !== undefined;
    await sleep(pollMs);
  }
  return () => rmSync(held, { recursive: true, force: true });
}

/** Moves the dead owner's lock away. If another waiter was faster, what moved is that one's live lock: give it back. */
function removeDead(folder, held, owner) {
  const grave = join(folder, `dead.${process.pid}`);
  rmSync(grave, { recursive: true, force: true });
  if (!tryRename(held, grave)) return;
  if (ownerOf(grave) !== owner && tryRename(grave, held)) return;
  rmSync(grave, { recursive: true, force: true });
}

function tryRename(from, to) {
  try {
    renameSync(from, to);
    return true;
  } catch {
    return false; // the target exists and is not empty, or the source is gone
  }
}

function ownerOf(lock) {
  try {
    return Number(readFileSync(join(lock, "pid"), "utf8"));
  } catch {
    return undefined;
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}
