import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { findProgram } from "../kit/programs.ts";
import { cacheDir } from "../kit/weights.ts";
import { DOCKER, stagesOf } from "./dockerfile.ts";

const IMAGES = ["coordinator", "agent-cpu", "agent-cuda", "agent-rocm"];
const ROOT = join(DOCKER, "../..");
const stages = stagesOf();
const images = stages.filter((stage) => IMAGES.includes(stage.name));
const all = (word: string, of = stages): string[] => of.flatMap((s) => s.instructions.filter((i) => i.word === word).map((i) => i.rest));

describe("Dockerfile", () => {
  it("has a stage for each image, every base pinned by a digest", () => {
    expect(images.map((stage) => stage.name)).toEqual(IMAGES);
    for (const stage of stages) expect(stage.base, stage.name).toMatch(/^\S+:\S+@sha256:[0-9a-f]{64}$/);
  });

  it("runs as 10001 at the end of every image, and starts the contract's program", () => {
    for (const image of images) {
      expect(all("USER", [image]).at(-1)).toBe("10001:10001");
      const program = image.name === "coordinator" ? "vibeserve" : "gpu-agent";
      expect(all("ENTRYPOINT", [image])).toEqual([`["/opt/vibeserve/bin/${program}"]`]);
    }
  });

  it("fetches nothing outside of package managers: no ADD, no download piped into a shell", () => {
    expect(all("ADD")).toEqual([]);
    const scripts = [...all("RUN"), readFileSync(join(DOCKER, "system.sh"), "utf8")].join("\n");
    expect(scripts).not.toMatch(/\b(curl|wget)\b|\|\s*(ba|da)?sh\b|https?:/);
  });

  it("gives the coordinator no build tools, and every agent a compiler and the sandbox", () => {
    for (const image of images) {
      const [packages = ""] = all("RUN", [image]);
      expect(packages).toMatch(/^sh \/tmp\/system\.sh ca-certificates /);
      if (image.name === "coordinator") expect(packages).not.toMatch(/g\+\+|gcc|clang|make|python|-dev\b/);
      else expect(packages).toMatch(/ bubblewrap g\+\+ /);
      expect(all("COPY", [image])).toEqual(["deploy/docker/system.sh /tmp/", "--from=core /opt/vibeserve /opt/vibeserve"]);
    }
  });

  it("keeps the coordinator's compiled code where a read-only container may write, and an agent's nowhere", () => {
    for (const image of images) {
      const folder = /NODE_COMPILE_CACHE=(\S+)/.exec(all("ENV", [image]).join(" "))?.[1];
      expect(folder, image.name).toBe(image.name === "coordinator" ? "/tmp/node-compile" : undefined);
    }
    const compose = parse(readFileSync(join(DOCKER, "compose.yaml"), "utf8"), { merge: true }) as { services: Record<string, object> };
    expect(compose.services["coordinator"]).toMatchObject({ tmpfs: [expect.stringMatching(/^\/tmp:rw,/) as string] });
  });

  it("labels every image as OCI says", () => {
    const keys = ["title", "description", "licenses", "version", "revision", "base.name"];
    for (const image of images)
      for (const key of keys) expect(all("LABEL", [image]).join(" ")).toContain(`org.opencontainers.image.${key}="`);
  });
});

describe("what is around it", () => {
  const confined = { read_only: true, cap_drop: ["ALL"], user: "10001:10001", security_opt: ["no-new-privileges:true"] };

  it("compose confines every service, speaks TLS, and joins by a file", () => {
    const compose = parse(readFileSync(join(DOCKER, "compose.yaml"), "utf8"), { merge: true }) as { services: Record<string, object> };
    for (const service of Object.values(compose.services)) expect(service).toMatchObject(confined);
    // Outside loopback the broker speaks nothing else.
    expect(compose.services["coordinator"]).toMatchObject({
      command: ["up", "--listen", "0.0.0.0:4222"],
      environment: { VIBESERVE_LOG_STDOUT: "1" },
    });
    expect(compose.services["agent"]).toMatchObject({ command: ["--join-file", "/etc/vibeserve/join/line"] });
    const opened = parse(readFileSync(join(DOCKER, "compose.sandbox.yaml"), "utf8")) as { services: Record<string, object> };
    expect(Object.keys(opened.services)).toEqual(["agent"]);
    expect(JSON.stringify(opened)).not.toMatch(/privileged":|cap_add/);
  });

  it("the bake file builds every image with an SBOM and its provenance, two of them for two architectures", () => {
    const bake = readFileSync(join(DOCKER, "docker-bake.hcl"), "utf8");
    expect(bake).toContain('attest = ["type=provenance,mode=max", "type=sbom"]');
    for (const image of IMAGES) {
      const [target = ""] = new RegExp(`target "${image}" \\{[^}]*\\}`).exec(bake) ?? [];
      expect(target).toContain('inherits  = ["image"]');
      expect(target.includes("linux/arm64")).toBe(image === "coordinator" || image === "agent-cpu");
    }
  });

  it("the build's context holds no secrets, no data of campaigns, nothing that git ignores", () => {
    const kept = readFileSync(join(ROOT, ".dockerignore"), "utf8").split("\n");
    expect(kept.find((line) => !line.startsWith("#"))).toBe("*");
    expect(kept.filter((line) => line.startsWith("!")).map((line) => line.slice(1))).not.toContain(".git");
    for (const ignored of ["**/node_modules", "**/.vibeserve*"]) expect(kept).toContain(ignored);
  });
});

// Shell scripts are held to shellcheck in lint.test.ts, those of images too.
const hadolint = findProgram("hadolint", [join(cacheDir(), "test-lint/bin")], "the Dockerfile's lint (.ci/run fetches it)");

it.skipIf(hadolint === null)("hadolint finds nothing", () => {
  const ran = spawnSync(hadolint ?? "", ["--no-color", join(DOCKER, "Dockerfile")], { encoding: "utf8" });
  expect(ran.stdout + ran.stderr).toBe("");
  expect(ran.status).toBe(0);
});
