import { chmod, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AssetContext } from "./asset-context.ts";
import { ensureCached } from "./cached-asset.ts";
import { zigAsset } from "./pinned-assets.ts";

/**
 * What makes `zig c++` a compiler like the others.
 * - zig keeps the C++ library that it has built in a cache that it must be able to write; a build sandbox shows this folder read-only, so
 *   a build there starts from a copy (90 MB) in its own TMPDIR.
 * - That library is built anew (2 min) for each target, CPU and choice between debug and release: a named target and an optimisation by
 *   default keep to one, whichever compiler or libc is installed, and mean the baseline CPU unless flags say more, as with gcc. glibc 2.28 is
 *   Debian 10's.
 * - zig spells the x86-64 levels with underscores.
 */
const wrapper = `#!/bin/sh
here=$(dirname "$0")
cache="$here/cache"
mkdir -p "$cache" 2>/dev/null
if [ ! -w "$cache" ]; then
  cache="\${TMPDIR:-/tmp}/vibeserve-zig-cache"
  if [ ! -d "$cache" ]; then
    { cp -R "$here/cache" "$cache.$$" && mv -T "$cache.$$" "$cache"; } 2>/dev/null || rm -rf "$cache.$$"
  fi
fi
for word do
  shift
  case $word in -march=x86-64*) word=-march=x86_64$(printf %s "\${word#-march=x86-64}" | tr - _) ;; esac
  set -- "$@" "$word"
done
export ZIG_GLOBAL_CACHE_DIR="$cache" ZIG_LOCAL_CACHE_DIR="$cache"
exec "$here/ziglang/zig" c++ -target "$(uname -m)-linux-gnu.2.28" -O2 "$@"
`;

/** Path of a program that is called like c++. Fetches ziglang if it is not cached (100 MB, 420 MB unpacked). */
export async function ensureZig(context: AssetContext): Promise<string> {
  const { path } = await ensureCached(zigAsset, context);
  const program = join(path, "c++");
  if ((await readFile(program, "utf8").catch(() => "")) !== wrapper) {
    const fresh = `${program}.${process.pid}`;
    await writeFile(fresh, wrapper);
    await chmod(fresh, 0o755);
    await rename(fresh, program);
  }
  return program;
}
