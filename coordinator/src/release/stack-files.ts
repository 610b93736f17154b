import { OUT_FILE, type Release, type StackManifest } from "@vibeserve/shared";

const SERVE_USAGE = "usage: serve.sh MODEL [SOCKET]; CPUS may name the processors, such as 0,1";

/**
 * What an exported stack needs beside its source to be built and served where there is no VibeServe: POSIX shell alone. Path → text; .sh files are executable.
 * The image of the Dockerfile is built from source/ again, so that it does not depend on this machine's libraries.
 */
export function stackFiles(manifest: StackManifest, release: Release, compiler: string): Map<string, string> {
  return new Map([
    ["build.sh", buildScript(manifest)],
    ["serve.sh", serveScript(manifest, release)],
    ["Dockerfile", dockerfile(release)],
    ["README.md", readme(manifest, release, compiler)],
  ]);
}

/** One shell word: `${NAME}` is the variable of that name, everything else is itself. */
export function shellWord(word: string): string {
  const quoted = word
    .split(/(\$\{[A-Z]+\})/)
    .filter((part) => part !== "")
    .map((part) =>
      /^\$\{[A-Z]+\}$/.test(part) ? `"${part}"` : /^[\w@%+=:,./-]+$/.test(part) ? part : `'${part.replaceAll("'", `'\\''`)}'`,
    )
    .join("");
  return quoted === "" ? "''" : quoted;
}

const command = (argv: readonly string[]): string => argv.map(shellWord).join(" ");

const buildScript = ({ build }: StackManifest): string => `#!/bin/sh
# Builds source/ into build/. CXX: a C++20 compiler, may be several words.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
CXX=\${CXX:-c++}
OUT=$here/build/${OUT_FILE}
mkdir -p "$here/build"
cd "$here/source"
${command(build)}
`;

const serveScript = ({ serve }: StackManifest, { model }: Release): string => `#!/bin/sh
# Serves build/ on a unix socket. ${SERVE_USAGE}
# MODEL is ${model.file}, sha256 ${model.sha256}
set -eu
here=$(cd "$(dirname "$0")" && pwd)
MODEL=\${1:-\${MODEL:-}}
SOCKET=\${2:-\${SOCKET:-/tmp/vibeserve-stack.sock}}
[ -n "$MODEL" ] || { echo "${SERVE_USAGE}" >&2; exit 2; }
# "0-2,5" as the kernel says it becomes "0,1,2,5".
if [ -z "\${CPUS:-}" ] && [ -r /proc/self/status ]; then
  CPUS=$(awk '/^Cpus_allowed_list:/ { n = split($2, part, ","); for (i = 1; i <= n; i++) { m = split(part[i], end, "-"); for (c = end[1]; c <= end[m]; c++) list = list (list == "" ? "" : ",") c } print list }' /proc/self/status)
fi
CPUS=\${CPUS:-0}
DEVICES=\${DEVICES:-1}
OUT=$here/build/${OUT_FILE}
rm -f "$SOCKET"
exec ${command(serve)}
`;

const dockerfile = ({
  model,
}: Release): string => `# Build here: docker build -t stack .   Run: docker run -v /path/to/models:/models -v /run/stack:/run/stack stack
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /stack
COPY source/ source/
COPY build.sh ./
RUN CXX=g++ ./build.sh

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libstdc++6 mawk && rm -rf /var/lib/apt/lists/*
WORKDIR /stack
COPY --from=build /stack/build/ build/
COPY serve.sh ./
ENV SOCKET=/run/stack/http.sock
VOLUME ["/models", "/run/stack"]
ENTRYPOINT ["/stack/serve.sh"]
CMD [${JSON.stringify(`/models/${model.file}`)}]
`;

function readme(manifest: StackManifest, { champion, target, model, device, treeDigest, evidence }: Release, compiler: string): string {
  const { point, lo, hi, pairs } = evidence.repeat;
  const labels = Object.entries(device).map(([key, value]) => `${key}=${value}`);
  return `# ${manifest.name}: champion ${champion.campaign}.${champion.experimentId}

Serves ${model.name} for the target ${target} on a device with ${labels.join(", ") || "any labels"}. Tree ${treeDigest}.
It was ${point.toFixed(2)}× [${lo.toFixed(2)}, ${hi.toFixed(2)}] as good as what was there before it, over ${pairs} interleaved pairs${evidence.simulated ? ", on a SIMULATED device" : ""}; see evidence/.

    CXX="c++" ./build.sh
    ./serve.sh /path/to/${model.file} /tmp/stack.sock
    curl --unix-socket /tmp/stack.sock http://stack/health

It was measured as built by ${compiler}; another compiler makes another program. It speaks the OpenAI API (${manifest.features.join(", ")}) on a unix
socket, takes up to ${manifest.resources.memBytes} bytes of memory, and needs neither VibeServe nor a network. It has no authentication: put a proxy before it.
Outside VibeServe there is no sandbox around it: run it as a user that may read the weights and nothing else.

- source/: the candidate's tree. build/: what it builds to. build.sh, serve.sh: how. Dockerfile: the same as an image, not built where this was exported.
- evidence/: what was measured when it was crowned, certificates, the accuracy check, and the log's events about it. export.json: digests of all of it.
`;
}
