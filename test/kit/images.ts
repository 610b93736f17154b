import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { cacheDir } from "./weights.ts";

const ROOT = join(import.meta.dirname, "../..");
const CACHE = join(cacheDir(), "test-images");
const STAND_IN = "localhost/vibeserve-test/debian:bookworm";
const NODE = "localhost/vibeserve-test/node:24";
/** Where an operator keeps authorities of this network, for the build alone. */
const AUTHORITIES = "/usr/local/share/ca-certificates";

export interface ImageConfig {
  User: string;
  Env: string[];
  Entrypoint: string[];
  Cmd?: string[];
  Labels: Record<string, string>;
  Healthcheck?: { Test: string[] };
}

const absent = ["buildah", "debootstrap", "npm"].filter((tool) => spawnSync(tool, ["--version"]).error !== undefined);
/** Why no image can be built here; null: they can. */
export const imagesProblem =
  process.platform !== "linux" || process.getuid?.() !== 0
    ? "it needs Linux and root"
    : absent.length > 0
      ? `there is no ${absent.join(", ")} (Debian: apt-get install buildah debootstrap)`
      : null;

/**
 * The product's images without an engine: built from the Dockerfile by buildah in a chroot, on a Debian that debootstrap makes in the place of the pinned bases, which no
 * test may fetch. `scratch`: a folder for what buildah writes meanwhile.
 */
export class Images {
  readonly #scratch: string;

  constructor(scratch: string) {
    this.#scratch = scratch;
    mkdirSync(CACHE, { recursive: true });
    this.#standIns();
  }

  /** Name of the image made of a stage of the Dockerfile. */
  build(stage: string): string {
    const image = `localhost/vibeserve-test/${stage}`;
    this.#buildah(
      ...["bud", "-q", "--isolation", "chroot", "--format", "docker", "--layers", "--timestamp", "0", "--target", stage],
      ...(existsSync(AUTHORITIES) ? ["--volume", `${AUTHORITIES}:${AUTHORITIES}:ro`] : []),
      ...["--build-arg", `DEBIAN=${STAND_IN}`, "--build-arg", `NODE=${NODE}`, "-f", "deploy/docker/Dockerfile", "-t", image, "."],
    );
    return image;
  }

  /** An image of one program. */
  single(name: string, program: string, at: string): string {
    const image = `localhost/vibeserve-test/${name}`;
    this.#from("scratch", image, (c) => {
      this.#buildah("copy", "-q", c, program, at);
      this.#buildah("config", "--env", "PATH=/usr/local/bin:/bin", "--entrypoint", JSON.stringify([at]), c);
    });
    return image;
  }

  /** Its configuration and the folder where its root lies, until `release`. */
  mount(image: string): { config: ImageConfig; root: string; container: string } {
    const container = this.#buildah("from", image);
    const { Docker: docker } = JSON.parse(this.#buildah("inspect", "--type", "image", image)) as { Docker: { config: ImageConfig } };
    return { config: docker.config, root: this.#buildah("mount", container), container };
  }

  release(container: string): void {
    this.#buildah("rm", container);
  }

  /** An archive that runtimes import, under another name: layers as they are, so that nobody waits for gzip. */
  archive(image: string, as: string, file: string): void {
    this.#buildah("push", "-q", image, `docker-archive:${file}:${as}`);
  }

  /** Once a machine: a Debian as the pinned base is one, and the same with Node and npm as the base of the build has them. */
  #standIns(): void {
    if (this.#run("buildah", ["images", "-q", NODE], false) !== "") return;
    const base = join(CACHE, "base");
    if (!existsSync(join(base, "etc/os-release")))
      this.#run("debootstrap", ["--variant=minbase", "bookworm", base, "http://deb.debian.org/debian"]);
    // The packages that it was made of; a base from a registry has none.
    this.#run("/bin/sh", ["-c", 'rm -f "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/deb*', "-", base]);
    this.#from("scratch", STAND_IN, (c) => this.#buildah("add", "-q", c, base, "/"));
    const npm = this.#run("readlink", ["-f", this.#run("/bin/sh", ["-c", "command -v npm"])]);
    this.#from(STAND_IN, NODE, (c) => {
      this.#buildah("copy", "-q", c, join(ROOT, "node_modules/node/bin/node"), "/usr/local/bin/node");
      this.#buildah("copy", "-q", c, join(npm, "../.."), "/usr/local/lib/npm");
      this.#buildah("run", "--isolation", "chroot", c, "ln", "-s", "../lib/npm/bin/npm-cli.js", "/usr/local/bin/npm");
    });
  }

  #from(base: string, name: string, fill: (container: string) => void): void {
    const container = this.#buildah("from", base);
    fill(container);
    this.#buildah("commit", "-q", "--rm", container, name);
  }

  #buildah(...args: string[]): string {
    return this.#run("buildah", args);
  }

  #run(file: string, args: readonly string[], check = true): string {
    const env = { ...process.env, LC_ALL: "C", TMPDIR: this.#scratch };
    const { status, stdout, stderr, error } = spawnSync(file, args, { encoding: "utf8", maxBuffer: 2 ** 26, env, cwd: ROOT });
    if (check && (error !== undefined || status !== 0))
      throw new Error(`${file} ${args.join(" ")}: ${status ?? error}\n${stderr.slice(-4000)}`);
    return stdout.trim();
  }
}
