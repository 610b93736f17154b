import { chmodSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { psTable } from "../../gpu-agent/src/process/ps-table.ts";
import type { Platform } from "../../gpu-agent/src/platform.ts";

/** A program for tests: a shell script. */
export function script(path: string, text: string): string {
  writeFileSync(path, `#!/bin/sh\n${text}`);
  chmodSync(path, 0o755);
  return path;
}

/** macOS's `ps` on Linux: the same columns from procps, which has another word for "with the environment". */
const PS = `case $1 in -axwwE) all=axeww ;; -wwE) all=eww ;; *) echo "ps: $1?" >&2; exit 1 ;; esac
shift
exec /usr/bin/ps $all "$@"
`;

/** A sandbox-exec that does what the profile says of files and of IP, by bubblewrap: nothing of the temporary folder but what it names. */
const obeying = (bwrap: string): string => `profile=$2
shift 2
bind() { printf '%s\\n' "$profile" | grep "^(allow $1" | grep -o 'subpath "${tmpdir()}/[^"]*"' | cut -d'"' -f2; }
set -- -- "$@"
for path in $(bind file-write); do set -- --bind "$path" "$path" "$@"; done
for path in $(bind file-read); do set -- --ro-bind "$path" "$path" "$@"; done
exec ${bwrap} --die-with-parent --unshare-net --ro-bind / / --dev /dev --proc /proc --tmpfs ${tmpdir()} "$@"
`;

/** What a fake sandbox-exec does with its command. */
export const SANDBOX_EXEC = {
  obeys: obeying,
  /** Runs it, and keeps nothing from it. */
  ignores: () => 'shift 2\nexec "$@"\n',
  /** Keeps files from it, and no network. */
  online: (bwrap: string) => obeying(bwrap).replace("--unshare-net ", ""),
  /** What macOS says within another sandbox. */
  nested: () => "echo 'sandbox-exec: sandbox_apply: Operation not permitted' >&2\nexit 71\n",
  /** A system that knows no GPU by these names. */
  noGpu: (bwrap: string) => `case $2 in *iokit*) echo 'sandbox-exec: no such class' >&2; exit 65 ;; esac\n${obeying(bwrap)}`,
};

/** macOS as far as an agent's pieces look at it, in programs that stand in for its own. */
export function mac(folder: string, kind: keyof typeof SANDBOX_EXEC, bwrap = ""): Platform {
  const sandboxExec = script(join(folder, `sandbox-exec-${kind}`), SANDBOX_EXEC[kind](bwrap));
  return { name: "darwin", processes: psTable(script(join(folder, "ps"), PS)), sandboxExec, uid: 501 };
}
