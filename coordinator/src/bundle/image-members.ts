import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { SetupError } from "../setup/index.ts";
import type { Members } from "./archive.ts";

/** Of what `docker buildx bake --metadata-file` writes, by target. */
const BakeMetadata = z.record(
  z.string(),
  z.looseObject({ "image.name": z.string().optional(), "containerimage.digest": z.string().startsWith("sha256:").optional() }),
);

/**
 * Images by digest, and the script that carries them to a registry behind the gap, at `parts/images/`: the bases that the Dockerfile pins and, where a file
 * of bake's says which digests they have, the product's own. An image's bytes are not among them: the script fetches them. Throws SetupError for that file.
 */
export function imageMembers(root: string, metadata: string | undefined): Members {
  const docker = join(root, "deploy/docker");
  const bases = [...readFileSync(join(docker, "Dockerfile"), "utf8").matchAll(/^ARG [A-Z]+=(\S+@sha256:[0-9a-f]{64})$/gm)].map(
    (m) => m[1] ?? "",
  );
  const own = metadata === undefined ? [] : ownImages(metadata);
  const text = [
    "# One image a line, as NAME:TAG@DIGEST. sh mirror-images.sh copies them.",
    ...(own.length > 0
      ? ["# VibeServe's own, as they were pushed."]
      : ["# VibeServe's own are not listed: build them and give `bundle --images` what bake's --metadata-file wrote."]),
    ...own,
    "# Bases, for who builds behind the gap.",
    ...bases,
  ];
  return new Map([
    ["parts/images/images.txt", { content: `${text.join("\n")}\n` }],
    ["parts/images/mirror-images.sh", { content: readFileSync(join(docker, "mirror-images.sh"), "utf8"), run: true }],
  ]);
}

function ownImages(file: string): string[] {
  const bad = (why: string): SetupError =>
    new SetupError("images", `--images ${file}: ${why}`, "give it what `docker buildx bake --push --metadata-file FILE` wrote");
  if (!existsSync(file)) throw bad("there is no such file");
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, "utf8"));
  } catch {
    throw bad("not JSON");
  }
  const parsed = BakeMetadata.safeParse(json);
  if (!parsed.success) throw bad("not what docker buildx bake --metadata-file writes");
  const images = Object.values(parsed.data).flatMap((target) => {
    const [name, digest] = [target["image.name"], target["containerimage.digest"]];
    // Several tags of one image are named with commas between them.
    return name === undefined || digest === undefined ? [] : [`${name.split(",")[0] ?? ""}@${digest}`];
  });
  if (images.length === 0) throw bad("it names no image with a digest; were they pushed?");
  return images.sort();
}
