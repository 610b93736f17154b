import { spawnSync } from "node:child_process";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { imageMembers } from "../../coordinator/src/bundle/image-members.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { DOCKER, stagesOf } from "./dockerfile.ts";

const ROOT = join(DOCKER, "../..");
const digest = `sha256:${"ab".repeat(32)}`;
const listOf = (metadata?: string): string[] => {
  const member = imageMembers(ROOT, metadata).get("parts/images/images.txt");
  return member !== undefined && "content" in member ? member.content.split("\n").filter((line) => !/^(#|$)/.test(line)) : [];
};

it("the list has every base that the Dockerfile builds on, by digest", () => {
  const bases = new Set(stagesOf().map((stage) => stage.base));
  expect(new Set(listOf())).toEqual(bases);
});

it("with what bake wrote it also has the product's own images, and a file that is none of bake's is refused", () => {
  using dir = tempDir("images");
  const file = join(dir.path, "bake.json");
  // The form of docker buildx bake --metadata-file, with keys that don't matter here.
  const target = { "buildx.build.ref": "builder/node/x", "containerimage.digest": digest, "image.name": "vibeserve/coordinator:0.1.0" };
  writeFileSync(file, JSON.stringify({ coordinator: target, "buildx.build.warnings": {} }));
  expect(listOf(file)[0]).toBe(`vibeserve/coordinator:0.1.0@${digest}`);
  writeFileSync(file, JSON.stringify({ coordinator: { "image.name": "vibeserve/coordinator:0.1.0" } }));
  expect(() => listOf(file)).toThrow(/names no image with a digest/);
  writeFileSync(file, "no");
  expect(() => listOf(file)).toThrow(/not JSON/);
  expect(() => listOf(join(dir.path, "none"))).toThrow(/no such file/);
});

it("mirror-images.sh asks for an image by its digest and keeps its path, whatever registry it came from", () => {
  using dir = tempDir("mirror");
  const crane = join(dir.path, "crane");
  writeFileSync(crane, `#!/bin/sh\necho "$@" >>${dir.path}/asked\n`);
  chmodSync(crane, 0o755);
  writeFileSync(join(dir.path, "list"), `# two\nvibeserve/coordinator:0.1.0@${digest}\ndocker.io/rocm/dev:7.2@${digest}\n`);
  // A PATH with crane, and of the system only what the script needs: no skopeo.
  for (const tool of ["cut", "dirname", "readlink", "sed", "sha256sum", "tr"])
    spawnSync("ln", ["-s", spawnSync("/bin/sh", ["-c", `command -v ${tool}`], { encoding: "utf8" }).stdout.trim(), dir.path]);
  const env = { PATH: dir.path, IMAGES: join(dir.path, "list") };
  const mirror = (...args: string[]) => spawnSync("/bin/sh", [join(DOCKER, "mirror-images.sh"), ...args], { encoding: "utf8", env });
  expect(mirror("copy", "registry.example/mirror")).toMatchObject({ status: 0, stdout: expect.stringMatching(/2 images/) as string });
  expect(readFileSync(join(dir.path, "asked"), "utf8").split("\n")).toEqual([
    `copy vibeserve/coordinator@${digest} registry.example/mirror/vibeserve/coordinator:0.1.0`,
    `copy docker.io/rocm/dev@${digest} registry.example/mirror/rocm/dev:7.2`,
    "",
  ]);
  expect(mirror("save", join(dir.path, "layout"))).toMatchObject({ status: 1, stderr: expect.stringMatching(/no skopeo/) as string });
  writeFileSync(join(dir.path, "list"), "vibeserve/coordinator:0.1.0\n");
  expect(mirror("copy", "registry.example")).toMatchObject({ status: 1, stderr: expect.stringMatching(/names no digest/) as string });
});
