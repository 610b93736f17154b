import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, linkSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { sha256 } from "@vibeserve/shared";
import { checkCandidateFiles, readCandidateFiles } from "../../coordinator/src/checkpoint/candidate-files.ts";
import { CampaignRepository, type Candidate } from "../../coordinator/src/checkpoint/repository.ts";
import { tarOf } from "../../coordinator/src/checkpoint/tar.ts";
import { tempDir } from "../kit/temp-dir.ts";

const PATH = process.env["PATH"] ?? "";

async function open(dir: string, campaign = "c1") {
  const artifacts = new Map<string, Uint8Array>();
  const putArtifact = async (bytes: Uint8Array) => {
    const ref = { digest: sha256(bytes), bytes: bytes.length };
    artifacts.set(ref.digest, bytes);
    return ref;
  };
  return { artifacts, repository: await CampaignRepository.open({ dir, path: PATH, putArtifact }, campaign) };
}

const files = (entries: Record<string, string>) => new Map(Object.entries(entries).map(([path, text]) => [path, Buffer.from(text)]));
const seed: Candidate = {
  experimentId: "seed",
  files: files({ "stack.json": "{}", "build.sh": "#!/bin/sh\ntrue\n", "core/main.cpp": "int main() {}\r\n" }),
  message: "seed: the start",
  parent: null,
  at: 1_700_000_000_000,
};
const git = (folder: string, ...args: string[]) => execFileSync("git", ["-C", folder, ...args], { encoding: "utf8" }).trim();

test("the same candidate is the same commit, tree and tar in any repository, however often it is made", async () => {
  using a = tempDir("git");
  using b = tempDir("git");
  const first = await (await open(a.path)).repository.commitTree(seed);
  const again = await (await open(a.path)).repository.commitTree(seed);
  const elsewhere = await (await open(b.path)).repository.commitTree({ ...seed, files: new Map([...seed.files].reverse()) });
  expect(again).toEqual(first);
  expect(elsewhere).toEqual(first);
  expect(first.commit).toMatch(/^[0-9a-f]{40}$/);
});

test("a commit holds exactly the candidate's files, byte for byte, on its parent", async () => {
  using dir = tempDir("git");
  const { repository } = await open(dir.path);
  const parent = await repository.commitTree(seed);
  const child = await repository.commitTree({
    ...seed,
    experimentId: "e1",
    files: files({ "stack.json": "{}", "new.cpp": "x\r\n" }),
    parent: parent.commit,
    message: "e1",
  });
  expect(git(repository.folder, "ls-tree", "-r", "--name-only", child.commit).split("\n")).toEqual(["new.cpp", "stack.json"]);
  expect(git(repository.folder, "rev-parse", `${child.commit}^`)).toBe(parent.commit);
  expect(git(repository.folder, "cat-file", "-s", `${parent.commit}:core/main.cpp`)).toBe("15");
  expect(git(repository.folder, "ls-tree", parent.commit, "build.sh")).toMatch(/^100755 /);
  expect(git(repository.folder, "fsck", "--strict", "--full")).toBe("");
});

test("the tar is read by tar(1) and depends on nothing but paths and bytes", async () => {
  using dir = tempDir("tar");
  const tar = tarOf(seed.files);
  expect(sha256(tar)).toBe(sha256(tarOf(new Map([...seed.files].reverse()))));
  writeFileSync(join(dir.path, "t.tar"), tar);
  mkdirSync(join(dir.path, "out"));
  execFileSync("tar", ["-xf", join(dir.path, "t.tar"), "-C", join(dir.path, "out")]);
  expect(readCandidateFiles(join(dir.path, "out"))).toEqual(new Map([...seed.files].sort(([x], [y]) => (x < y ? -1 : 1))));
});

test("a bundle holds every candidate, and a clone of it checks out the champion's branch", async () => {
  using dir = tempDir("git");
  const { repository } = await open(dir.path);
  expect(await repository.bundle(join(dir.path, "none.bundle"))).toBe(false);
  const { commit, treeDigest } = await repository.commitTree(seed);
  expect(await repository.championCommit()).toBeNull();
  expect(await repository.bundle(join(dir.path, "early.bundle"))).toBe(true);
  expect(git(dir.path, "bundle", "list-heads", "early.bundle")).toBe(`${commit} refs/experiments/seed`);
  expect(await repository.crown(commit)).toBe("champion/c1");
  expect(await repository.championCommit()).toBe(commit);
  expect(git(repository.folder, "rev-parse", `${commit}^{tree}`)).toBe(treeDigest);
  expect(await repository.bundle(join(dir.path, "all.bundle"))).toBe(true);
  git(dir.path, "clone", "--quiet", "all.bundle", "clone");
  expect(readFileSync(join(dir.path, "clone/core/main.cpp"), "utf8")).toBe("int main() {}\r\n");
});

test.each([
  ["../escape", /component "\.\."/],
  ["/etc/passwd", /absolute/],
  ["a//b", /component ""/],
  ["a/./b", /component "\."/],
  [".git/config", /git's own/],
  ["sub/.GIT/hooks/post-checkout", /git's own/],
  ["GIT~1/config", /git's own/],
  [".gitattributes", /git's own/],
  [".gitmodules", /git's own/],
  ["a\\b", /not allowed/],
  ["a\nb", /not allowed/],
  ['a"b', /not allowed/],
  ["a\u200c.git", /not allowed/],
  ["trailing.", /dot or a space/],
  ["x".repeat(101), /longer than 100/],
])("a candidate with the path %j is refused", async (path, message) => {
  using dir = tempDir("git");
  const { repository } = await open(dir.path);
  await expect(repository.commitTree({ ...seed, files: files({ [path]: "x" }) })).rejects.toThrow(message);
});

test("paths that collide on another file system are refused", () => {
  expect(() => checkCandidateFiles(files({ "a/B": "", "A/b": "" }))).toThrow(/only in case/);
  expect(() => checkCandidateFiles(files({ a: "", "a/b": "" }))).toThrow(/a file and a folder/);
  expect(() => checkCandidateFiles(new Map([["big", new Uint8Array(17 * 1024 * 1024)]]))).toThrow(/at most/);
});

test("an agent's worktree can smuggle in neither links nor a repository", async () => {
  using dir = tempDir("git");
  const { repository } = await open(dir.path);
  const { commit } = await repository.commitTree(seed);
  await using tree = await repository.openWorktree("e1", commit);
  expect(tree.files().get("core/main.cpp")).toEqual(Buffer.from("int main() {}\r\n"));
  symlinkSync("/etc/passwd", join(tree.folder, "link"));
  expect(() => tree.files()).toThrow(/"link": is a symbolic link/);
  execFileSync("rm", [join(tree.folder, "link")]);
  linkSync(join(tree.folder, "stack.json"), join(dir.path, "outside"));
  expect(() => tree.files()).toThrow(/"stack.json": is not a regular file/);
  execFileSync("rm", [join(dir.path, "outside")]);
  mkdirSync(join(tree.folder, "core/.git"));
  expect(() => tree.files()).toThrow(/git's own/);
});

test("neither hooks, filters nor anybody's configuration run or change anything", async () => {
  using dir = tempDir("git");
  const evil = join(dir.path, "evil");
  writeFileSync(evil, `#!/bin/sh\ntouch ${join(dir.path, "ran")}\n`);
  chmodSync(evil, 0o755);
  writeFileSync(
    join(dir.path, "gitconfig"),
    `[core]\n\thooksPath = ${dir.path}\n\tfsmonitor = ${evil}\n[filter "x"]\n\tclean = ${evil}\n\tsmudge = ${evil}\n[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = ${evil}\n`,
  );
  const before = { HOME: process.env["HOME"], GLOBAL: process.env["GIT_CONFIG_GLOBAL"] };
  process.env["HOME"] = dir.path;
  process.env["GIT_CONFIG_GLOBAL"] = join(dir.path, "gitconfig");
  try {
    const { repository } = await open(dir.path);
    mkdirSync(join(repository.folder, "hooks"));
    for (const hook of ["post-checkout", "reference-transaction", "post-commit", "pre-commit"]) {
      writeFileSync(join(repository.folder, "hooks", hook), `#!/bin/sh\ntouch ${join(dir.path, "ran")}\n`);
      chmodSync(join(repository.folder, "hooks", hook), 0o755);
    }
    const { commit } = await repository.commitTree(seed);
    await repository.crown(commit);
    await using _tree = await repository.openWorktree("e1", commit);
    expect(existsSync(join(dir.path, "ran"))).toBe(false);
  } finally {
    for (const [key, value] of [
      ["HOME", before.HOME],
      ["GIT_CONFIG_GLOBAL", before.GLOBAL],
    ] as const)
      if (value === undefined) Reflect.deleteProperty(process.env, key);
      else process.env[key] = value;
  }
});
