const HEAD = `#!/bin/sh
# Runs VibeServe from this folder. Nothing is fetched.
here=$(dirname "$(dirname "$(readlink -f "$0")")")
export VIBESERVE_BUNDLE="$here" PATH="$here/node/bin:\${PATH:-/usr/bin:/bin}"
export PIP_NO_INDEX=1 PIP_FIND_LINKS="$here/parts/wheels"
`;

/** `bin/vibeserve` of a bundle: from wherever it lies, also through a link. pip finds the wheels' archive, and no index. */
export const launcher = (
  natsServer: string,
): string => `${HEAD}export VIBESERVE_NATS_SERVER="\${VIBESERVE_NATS_SERVER:-$here/${natsServer}}"
exec "$here/node/bin/node" "$here/coordinator/src/main.ts" "$@"
`;

/** `bin/gpu-agent` of a bundle: the agent without the set-up around it, for pods and services. The bundle's bubblewrap is for systems that have none. */
export const agentLauncher = (bwrap: string): string => `${HEAD}if [ ! -x /usr/bin/bwrap ]; then
  export VIBESERVE_AGENT_BWRAP="\${VIBESERVE_AGENT_BWRAP:-$here/${bwrap}}"
fi
exec "$here/node/bin/node" "$here/gpu-agent/src/main.ts" "$@"
`;

/** `install.sh` of a bundle: checks every file against the manifests of the archives that were unpacked, then links the commands. */
export const INSTALL = `#!/bin/sh
# sh install.sh [DIR]: checks this bundle's files, then puts links to bin/vibeserve and bin/gpu-agent into DIR (default ~/.local/bin).
set -eu
cd "$(dirname "$(readlink -f "$0")")"
for manifest in MANIFEST*.json; do
  sed -n 's|^    "\\(.*\\)": "\\([0-9a-f]\\{64\\}\\)",\\{0,1\\}$|\\2  \\1|p' "$manifest" >"\${TMPDIR:-/tmp}/vibeserve-sums.$$"
  failed=$(sha256sum -c "\${TMPDIR:-/tmp}/vibeserve-sums.$$" 2>&1 | grep -v ': OK$' || true)
  rm -f "\${TMPDIR:-/tmp}/vibeserve-sums.$$"
  if [ -n "$failed" ]; then
    printf '%s\\n' "$failed" "install.sh: these files are not as $manifest has them; unpack the archive again" >&2
    exit 1
  fi
  echo "$manifest: every file is as it was packed"
done
bin=\${1:-\${HOME:?}/.local/bin}
mkdir -p "$bin"
for name in vibeserve gpu-agent; do
  ln -sf "$PWD/bin/$name" "$bin/$name"
  echo "$bin/$name"
done
`;
