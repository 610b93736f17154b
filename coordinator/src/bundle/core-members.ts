import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import type { Members } from "./archive.ts";
import { filesUnder } from "./files-under.ts";
import { agentLauncher, installer, launcher } from "./launcher.ts";
import type { NpmPackage } from "./npm-package.ts";

/** Of the repository: what runs. No tests, docs or tools; coordinator/bin is the way in of a source checkout. */
const SOURCES = [
  "coordinator/src",
  "coordinator/prices.yaml",
  "gpu-agent",
  "shared",
  "stacks",
  "prompts",
  "targets",
  "deploy/node/service.sh",
  "deploy/systemd",
  "deploy/launchd",
];
export const PACKAGES = ["coordinator", "gpu-agent", "shared"];

const Lock = z.object({
  packages: z.record(
    z.string(),
    z.object({
      version: z.string().optional(),
      integrity: z.string().optional(),
      dev: z.boolean().optional(),
      devOptional: z.boolean().optional(),
      optional: z.boolean().optional(),
      link: z.boolean().optional(),
      os: z.array(z.string()).optional(),
      cpu: z.array(z.string()).optional(),
    }),
  ),
});

export const readLock = (root: string): z.infer<typeof Lock>["packages"] =>
  Lock.parse(JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"))).packages;

/** Name of a package by its place in the lock. */
export const nameAt = (place: string): string => place.slice(place.lastIndexOf("node_modules/") + "node_modules/".length);

/** Whether a package's list of systems or processors takes one, as npm reads it: "!win32" is all but that. */
const takes = (list: readonly string[] | undefined, one: string): boolean =>
  list === undefined || list.includes(one) || (list.every((name) => name.startsWith("!")) && !list.includes(`!${one}`));

/** Types, maps and texts about a package; its licence stays. */
const UNUSED = /(?:\.(?:[mc]?ts|map|md|markdown|flow|html)$)|^(?:tests?|docs?|examples?|benchmarks?|\.github)\//i;
const unused = (path: string): boolean => UNUSED.test(path) && !/^licen[cs]e/i.test(path);

export interface CoreParts {
  /** As in "linux-arm64". */
  platform: string;
  /** The program, on this machine. */
  node: string;
  /** Where these programs lie in the bundle. Null: the platform has no bubblewrap. */
  natsServer: string;
  bwrap: string | null;
  /** Content of a package of the lock that this machine has not, such as one for another platform. */
  fetch: (wanted: NpmPackage) => Promise<string>;
}

/**
 * The core of a bundle but for the parts that the set-up fetches: sources as git knows them (changed and new files as they lie there), production
 * packages of the lock that are for this platform, Node.
 */
export async function coreMembers(root: string, { platform, node, natsServer, bwrap, fetch }: CoreParts): Promise<Members> {
  const [os = "", cpu = ""] = platform.split("-");
  const members: Members = new Map();
  const { stdout } = await promisify(execFile)(
    "git",
    ["ls-files", "-coz", "--exclude-standard", "--", ...SOURCES, ...PACKAGES.map((p) => `${p}/package.json`)],
    {
      cwd: root,
      maxBuffer: 2 ** 24,
    },
  );
  for (const path of stdout.split("\0")) if (path !== "" && existsSync(join(root, path))) members.set(path, { file: join(root, path) });
  for (const [place, entry] of Object.entries(readLock(root))) {
    if (!place.startsWith("node_modules/") || entry.link || entry.dev || entry.devOptional) continue;
    if (!takes(entry.os, os) || !takes(entry.cpu, cpu)) continue;
    const { version = "", integrity = "" } = entry;
    const folder = existsSync(join(root, place)) ? join(root, place) : await fetch({ name: nameAt(place), version, integrity });
    for (const path of await filesUnder(folder))
      // A package inside another has a line of its own in the lock.
      if (!unused(path) && !path.startsWith("node_modules/")) members.set(`${place}/${path}`, { file: join(folder, path) });
  }
  // Links, since Node runs no TypeScript under node_modules.
  for (const name of PACKAGES) members.set(`node_modules/@vibeserve/${name}`, { link: `../../${name}` });
  members.set("node/bin/node", { file: node });
  members.set("bin/vibeserve", { content: launcher(natsServer), run: true });
  members.set("bin/gpu-agent", { content: agentLauncher(bwrap), run: true });
  members.set("install.sh", { content: installer(platform), run: true });
  return members;
}
