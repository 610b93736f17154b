/** For any POSIX shell, and `readlink` and `sed` as a Mac has them: no readlink -f, no sed -i. */
const WHERE = `unset CDPATH
self=$0
while [ -L "$self" ]; do
  to=$(readlink "$self")
  case $to in /*) self=$to ;; *) self=$(dirname "$self")/$to ;; esac
done
`;

const HEAD = `#!/bin/sh
# Runs VibeServe from this folder. Nothing is fetched.
${WHERE}here=$(cd "$(dirname "$self")/.." && pwd -P) || exit
export VIBESERVE_BUNDLE="$here" PATH="$here/node/bin:\${PATH:-/usr/bin:/bin}"
export PIP_NO_INDEX=1 PIP_FIND_LINKS="$here/parts/wheels"
`;

/** `bin/vibeserve` of a bundle: from wherever it lies, also through a link. pip finds the wheels' archive, and no index. */
export const launcher = (
  natsServer: string,
): string => `${HEAD}export VIBESERVE_NATS_SERVER="\${VIBESERVE_NATS_SERVER:-$here/${natsServer}}"
exec "$here/node/bin/node" "$here/coordinator/src/main.ts" "$@"
`;

/** `bin/gpu-agent` of a bundle: the agent without the set-up around it, for pods and services. The bundle's bubblewrap, where it has one, is for systems that have none. */
export const agentLauncher = (bwrap: string | null): string => `${HEAD}${
  bwrap === null
    ? ""
    : `if [ ! -x /usr/bin/bwrap ]; then
  export VIBESERVE_AGENT_BWRAP="\${VIBESERVE_AGENT_BWRAP:-$here/${bwrap}}"
fi
`
}exec "$here/node/bin/node" "$here/gpu-agent/src/main.ts" "$@"
`;

/** `install.sh` of a bundle: refuses another platform's machine, checks every file against the manifests of the archives that were unpacked, then links the commands. */
export const installer = (platform: string): string => `#!/bin/sh
# sh install.sh [DIR]: checks this bundle's files, then puts links to bin/vibeserve and bin/gpu-agent into DIR (default ~/.local/bin).
set -eu
case $(uname -m) in x86_64 | amd64) arch=x64 ;; aarch64 | arm64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
machine=$(uname -s | tr '[:upper:]' '[:lower:]')-$arch
if [ "$machine" != ${platform} ]; then
  echo "install.sh: this bundle is for ${platform}, and this machine is $machine" >&2
  exit 1
fi
if command -v sha256sum >/dev/null; then sums=sha256sum; else sums='shasum -a 256'; fi
bin=\${1:-\${HOME:?}/.local/bin}
case $bin in /*) ;; *) bin=$PWD/$bin ;; esac
${WHERE}cd "$(dirname "$self")"
here=$(pwd -P)
list=\${TMPDIR:-/tmp}/vibeserve-sums.$$
for manifest in MANIFEST*.json; do
  sed -n 's|^    "\\(.*\\)": "\\([0-9a-f]\\{64\\}\\)",\\{0,1\\}$|\\2  \\1|p' "$manifest" >"$list"
  failed=$($sums -c "$list" 2>&1 | grep -v ': OK$' || true)
  rm -f "$list"
  if [ -n "$failed" ]; then
    printf '%s\\n' "$failed" "install.sh: these files are not as $manifest has them; unpack the archive again" >&2
    exit 1
  fi
  echo "$manifest: every file is as it was packed"
done
mkdir -p "$bin"
for name in vibeserve gpu-agent; do
  ln -sf "$here/bin/$name" "$bin/$name"
  echo "$bin/$name"
done
`;
