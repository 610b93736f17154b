import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";

/** What the fake pip does when it is asked to download. */
export type PipBehaviour =
  | { kind: "serve"; folder: string }
  | { kind: "garbage" }
  | { kind: "say"; text: string }
  | { kind: "hang"; started: string }
  | { kind: "absent" };

/**
 * A `python3` that stands at pip's command line; everything else it leaves to the real one. `calls` counts its downloads.
 * `serve` copies `<folder>/*.whl`; `hang` writes half a wheel, its
 * process id and that of a child into `started`, and never ends.
 */
export function fakePython(bin: string, realPython: string, pip: PipBehaviour): { calls: () => number } {
  const log = join(bin, "pip-calls.log");
  const download = {
    serve: pip.kind === "serve" ? `cp "${pip.folder}"/*.whl "$dest"/` : "",
    garbage: `echo garbage > "$dest/$(echo "$what" | sed 's/-/_/g; s/==/-/')-py3-none-any.whl"`,
    say: pip.kind === "say" ? `echo '${pip.text}' >&2; exit 1` : "",
    hang: pip.kind === "hang" ? `echo half > "$dest/half.whl"; sleep 600 & echo $$ $! > "${pip.started}"; wait` : "",
    absent: "",
  }[pip.kind];
  const absent = pip.kind === "absent" ? `echo "$0: No module named pip" >&2; exit 1` : `echo "pip 24.0 from nowhere"; exit 0`;
  const script = `#!/bin/sh
if [ "$1" = -c ]; then echo "$0"; echo 3.11.0; exit 0; fi
if [ "$1 $2 $3" = "-m pip --version" ]; then ${absent}; fi
if [ "$1 $2 $3" = "-m pip download" ]; then
  echo "$@" >> "${log}"
  while [ $# -gt 1 ]; do [ "$1" = --dest ] && dest=$2; shift; done
  what=$1
  ${download}
  exit 0
fi
exec "${realPython}" "$@"
`;
  writeExecutable(bin, "python3", script);
  return { calls: () => (existsSync(log) ? readFileSync(log, "utf8").trim().split("\n").length : 0) };
}

/** A shell script as a program in `bin`. */
export function writeExecutable(bin: string, name: string, script: string): void {
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, name), script);
  chmodSync(join(bin, name), 0o755);
  expect(existsSync(join(bin, name))).toBe(true);
}
