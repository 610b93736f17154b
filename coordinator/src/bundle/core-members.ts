import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { z } from "zod";
import type { Members } from "./archive.ts";
import { INSTALL, launcher } from "./launcher.ts";
import { filesUnder } from "./files-under.ts";

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
    }),
  ),
});

export const readLock = (root: string): z.infer<typeof Lock>["packages"] =>
  Lock.parse(JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"))).packages;

/** Types, maps and texts about a package; its licence stays. */
const UNUSED = /(?:\.(?:[mc]?ts|map|md|markdown|flow|html)$)|^(?:tests?|docs?|examples?|benchmarks?|\.github)\//i;
const unused = (path: string): boolean => UNUSED.test(path) && !/^licen[cs]e/i.test(path);

/**
 * The core of a bundle but for the parts that the set-up fetches: sources as git knows them (changed and new files as they lie there), production
 * packages of the lock, Node. `natsServer`: where that part lies in the bundle.
 */
export async function coreMembers(root: string, natsServer: string): Promise<Members> {
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
    if (!place.startsWith("node_modules/") || entry.link || entry.dev || entry.devOptional || !existsSync(join(root, place))) continue;
    for (const path of await filesUnder(join(root, place)))
      // A package inside another has a line of its own in the lock.
      if (!unused(path) && !path.startsWith("node_modules/")) members.set(`${place}/${path}`, { file: join(root, place, path) });
  }
  // Links, since Node runs no TypeScript under node_modules.
  for (const name of PACKAGES) members.set(`node_modules/@vibeserve/${name}`, { link: `../../${name}` });
  members.set("node/bin/node", { file: join(root, "node_modules/node/bin/node") });
  members.set("bin/vibeserve", { content: launcher(natsServer), run: true });
  members.set("install.sh", { content: INSTALL, run: true });
  return members;
}
