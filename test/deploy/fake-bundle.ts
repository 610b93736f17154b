import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";

export const DEPLOY = join(import.meta.dirname, "../../deploy");

/** How the agent in it behaves: it runs; it does not even describe itself; it ends at once; it is refused (77) at once. */
export type Behaviour = "runs" | "broken" | "dies" | "refused";

export interface FakeBundle {
  version: string;
  behaviour?: Behaviour;
  platform?: string;
  /** Weights in it, name → content. */
  weights?: Record<string, string>;
  /** Further members by their path in the archive, such as "../evil". */
  strays?: Record<string, string>;
}

/** Writes an archive in a bundle's form, with its checksum beside it, whose agent and coordinator are shell scripts; units and plist are the real ones. Returns its name. */
export function writeFakeBundle(
  out: string,
  { version, behaviour = "runs", platform = hostPlatform(), weights = {}, strays = {} }: FakeBundle,
): string {
  const top = `vibeserve-${version}-${platform}`;
  const folder = join(out, top);
  rmSync(folder, { recursive: true, force: true });
  for (const name of ["bin", "deploy/node", "parts/weights"]) mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, "MANIFEST.json"), `${JSON.stringify({ v: 1, kind: "bundle", part: "core", platform }, null, 2)}\n`);
  for (const name of ["systemd", "launchd", "node/service.sh"])
    cpSync(join(DEPLOY, name), join(folder, "deploy", name), { recursive: true });
  for (const [name, content] of Object.entries(weights)) writeFileSync(join(folder, "parts/weights", name), content);
  for (const name of ["gpu-agent", "vibeserve"]) {
    writeFileSync(join(folder, "bin", name), program(version, behaviour));
    chmodSync(join(folder, "bin", name), 0o755);
  }
  const archive = join(out, `${top}-core.tar.gz`);
  const more = Object.entries(strays).map(([path, content]) => {
    writeFileSync(join(out, "stray"), content);
    return ["--transform", `s|^stray$|${path}|`];
  });
  const made = spawnSync("tar", ["-czPf", archive, "-C", out, ...more.flat(), top, ...(more.length > 0 ? ["stray"] : [])], {
    encoding: "utf8",
  });
  if (made.status !== 0) throw new Error(made.stderr);
  rmSync(folder, { recursive: true });
  writeFileSync(`${archive}.sha256`, `${sha256(archive)}  ${basename(archive)}\n`);
  return basename(archive);
}

export const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

export const hostPlatform = (): string => `${process.platform}-${process.arch}`;

const program = (version: string, behaviour: Behaviour): string => `#!/bin/sh
case "$*" in
  *--describe* | *--version*)
    ${behaviour === "broken" ? 'echo "this version is broken" >&2; exit 1' : `echo '{"version":"${version}"}'; exit 0`}
    ;;
esac
echo ${version} >"$HOME/running"
${{ runs: "exec sleep 100000", broken: "exit 1", dies: 'echo "this version dies"; exit 1', refused: 'echo "refused"; exit 77' }[behaviour]}
`;
