import { spawnSync } from "node:child_process";
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Images, imagesProblem, type ImageConfig } from "../../kit/images.ts";
import { tempDir } from "../../kit/temp-dir.ts";

/**
 * The images without an engine: built from the Dockerfile by buildah in a chroot, on a Debian that debootstrap makes in the place of the pinned bases, which
 * no test may fetch. Then their roots are started under bubblewrap as a pod would start them: read-only, uid 10001, no capability, no network but loopback.
 */
const ROOT = join(import.meta.dirname, "../../..");
const dir = tempDir("images");
afterAll(() => dir[Symbol.dispose]());

function run(file: string, args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(file, args, { encoding: "utf8", maxBuffer: 2 ** 26, cwd: ROOT });
  if (error !== undefined || status !== 0) throw new Error(`${file} ${args.join(" ")}: ${status ?? error}\n${stderr.slice(-4000)}`);
  return stdout.trim();
}

const missing = ["bwrap", "setpriv"].filter((tool) => spawnSync(tool, ["--version"]).error !== undefined);
const skipped = imagesProblem ?? (missing.length > 0 ? `there is no ${missing.join(", ")} (Debian: apt-get install bubblewrap)` : null);
if (skipped !== null) process.stderr.write(`images: building and starting them is skipped: ${skipped}\n`);

const VOLUMES = ["state", "agent-data", "cache", "join"];

/** What ends up in the coordinator's image must build nothing. */
const BUILD_TOOLS = ["cc", "c++", "g++", "gcc", "ld", "as", "make", "clang", "python3", "pip", "npm", "curl", "wget"];

describe.skipIf(skipped !== null)("images", () => {
  let images: Images;
  let coordinator: ReturnType<Images["mount"]>;
  let agent: ReturnType<Images["mount"]>;
  beforeAll(() => {
    images = new Images(dir.path);
    coordinator = images.mount(images.build("coordinator"));
    agent = images.mount(images.build("agent-cpu"));
    const mb = (root: string): string => `${(Number(run("du", ["-sb", root]).split("\t")[0]) / 1e6).toFixed(0)} MB`;
    process.stderr.write(`images: root of coordinator ${mb(coordinator.root)}, of agent-cpu ${mb(agent.root)}\n`);
  }, 10 * 60_000);
  afterAll(() => {
    for (const { container } of [coordinator, agent]) images.release(container);
  });

  it("belong to 10001, are labelled, and the coordinator's has nothing to build with", () => {
    for (const { config } of [coordinator, agent]) {
      expect(config.User).toBe("10001:10001");
      expect(config.Labels["org.opencontainers.image.licenses"]).toBe("Apache-2.0");
    }
    const tools = (root: string): string[] => ["bin", "sbin", "local/bin"].flatMap((folder) => readdirSync(join(root, "usr", folder)));
    expect(tools(coordinator.root).filter((name) => BUILD_TOOLS.includes(name))).toEqual([]);
    expect(tools(coordinator.root)).toContain("git");
    expect(tools(agent.root)).toEqual(expect.arrayContaining(["g++", "bwrap", "prlimit", "python3"]));
    expect(existsSync(join(agent.root, "opt/vibeserve/bin/gpu-agent"))).toBe(true);
  });

  it("start read-only as 10001 without a network: over TLS an agent joins by a file, a campaign runs, the agent comes back", () => {
    for (const volume of VOLUMES) {
      mkdirSync(join(dir.path, volume), { mode: 0o700 });
      chownSync(join(dir.path, volume), 10001, 10001);
    }
    const words = (argv: readonly string[]): string => argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
    const image = (name: string, { config }: { config: ImageConfig }, volumes: readonly string[]): string =>
      `${name}() { exec ${words([
        ...["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"],
        ...["bwrap", "--die-with-parent", "--as-pid-1", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"],
        ...["--ro-bind", `/mnt/${name}`, "/", "--proc", "/proc", "--dev", "/dev", "--ro-bind", "/sys", "/sys", "--tmpfs", "/tmp"],
        ...volumes.flatMap((v) => ["--bind", `/mnt/${v.split(":")[0] ?? ""}`, v.split(":")[1] ?? ""]),
        ...["--clearenv", ...config.Env.flatMap((e) => ["--setenv", e.slice(0, e.indexOf("=")), e.slice(e.indexOf("=") + 1)])],
        ...["--setenv", "VIBESERVE_ADVERTISE", "127.0.0.1:4222", "--chdir", "/"],
      ])} "$@"; }`;
    const state = ["state:/var/lib/vibeserve", "cache:/var/cache/vibeserve", "join:/etc/vibeserve/join"];
    const up = words([...coordinator.config.Entrypoint, "up", "--data", "/var/lib/vibeserve", "--listen", "0.0.0.0:4222"]);
    const healthy = words(coordinator.config.Healthcheck?.Test.slice(1) ?? ["false"]);
    const started = words([
      ...[...agent.config.Entrypoint, "--data", "/var/lib/vibeserve-agent", "--join-file", "/etc/vibeserve/join/line", "--agent-id", "pod"],
    ]);
    // The program is process 1, as in a pod; each call is a process of its own, so that what is stopped is that program.
    const script = `set -eu; L=/mnt/log; trap 'j=$(jobs -p); test -z "$j" || kill $j' EXIT
      ${image("coordinator", coordinator, state)}
      ${image("agent", agent, ["agent-data:/var/lib/vibeserve-agent", "cache:/var/cache/vibeserve", "join:/etc/vibeserve/join"])}
      until_says() { n=0; until grep -q "$1" $2; do n=$((n+1)); test $n -lt 300 || { cat $L/*; exit 9; }; sleep 0.2; done; }
      stop() { kill -TERM $(pgrep -P $2); wait $2 && echo "$1 stopped in order"; }
      (coordinator /bin/sh -c 'id -u; grep -E "^Cap(Eff|Bnd)" /proc/self/status; touch /opt/x /etc/x || echo read-only')
      coordinator ${up} >$L/up 2>&1 & up=$!
      until_says 'coordinator ready' $L/up
      (coordinator ${healthy})
      (coordinator vibeserve agents token --labels vibeserve.dev/device.kind=cpu) | cut -d"'" -f2 >/tmp/line
      install -o 10001 -g 10001 -m 600 /tmp/line /mnt/join/line
      for life in first second; do
        agent ${started} >$L/agent-$life 2>&1 & agent=$!
        until_says 'taking jobs' $L/agent-$life
        if [ $life = first ]; then
          (coordinator vibeserve checkpoint)
          (coordinator vibeserve submit /var/lib/vibeserve/random-llama-1.yaml)
          (coordinator vibeserve watch) || true
        fi
        (coordinator vibeserve agents)
        stop "$life agent" $agent
      done
      stop coordinator $up
      cat $L/*`;
    mkdirSync(join(dir.path, "log"));
    const binds = [...VOLUMES, "log"].flatMap((v) => ["--bind", join(dir.path, v), `/mnt/${v}`]);
    const outer = spawnSync(
      "bwrap",
      [
        ...["--unshare-net", "--die-with-parent", "--cap-add", "ALL", "--dev-bind", "/", "/", "--tmpfs", "/tmp"],
        ...["--tmpfs", "/mnt", "--bind", coordinator.root, "/mnt/coordinator", "--bind", agent.root, "/mnt/agent", ...binds],
        ...["/bin/sh", "-c", script],
      ],
      { encoding: "utf8", maxBuffer: 2 ** 26, env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" } },
    );
    const text = outer.stdout + outer.stderr;
    expect(outer.status, text.slice(-6000)).toBe(0);
    expect(text).toMatch(/^10001$/m);
    expect(text).toContain("CapEff:\t0000000000000000");
    expect(text).toContain("read-only");
    expect(coordinator.config.Env).toContain("NODE_COMPILE_CACHE=/tmp/node-compile");
    expect(text).toContain("tls://127.0.0.1:4222");
    expect(text).toContain('"sandbox":"bubblewrap"');
    expect(text).toContain("seed check passed");
    expect(text).toMatch(/champion \S+ crowned/);
    for (const who of ["first agent", "second agent", "coordinator"]) expect(text).toContain(`${who} stopped in order`);
    expect(text).not.toMatch(/\((?:harness|network)\)|npm start|npx /);
    expect(readFileSync(join(dir.path, "join/line"), "utf8")).toMatch(/^tls:\/\/127\.0\.0\.1:4222#/);
  });
});

const engine = spawnSync("docker", ["compose", "version"]).status === 0 && spawnSync("docker", ["info"]).status === 0;
if (!engine) process.stderr.write("images: docker compose is skipped: no engine answers\n");
describe.skipIf(!engine)("docker compose, where an engine answers", () => {
  const compose = (...args: string[]): string =>
    run("docker", ["compose", "-p", "vibeserve-test", "-f", "deploy/docker/compose.yaml", ...args]);
  afterAll(() => void compose("down", "-v", "--timeout", "30"));

  it("builds, comes up healthy, and its agent takes jobs", () => {
    compose("up", "-d", "--build", "--wait", "--wait-timeout", "120");
    expect(compose("exec", "-T", "coordinator", "vibeserve", "agents")).toMatch(/laptop +ready/);
  });
});
