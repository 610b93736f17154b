import { spawn } from "node:child_process";
import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { CandidateFilesError, readCandidateFiles } from "../../coordinator/src/checkpoint/candidate-files.ts";
import { tempDir } from "../kit/temp-dir.ts";

const SECRET = "sk-canary-outside";

/** A process that works in the folder while it is read: puts what is honest and a link to what is outside in turns at `name`. */
const SWAP = `
  const { renameSync, symlinkSync, writeFileSync, mkdirSync, rmSync } = require("node:fs");
  const [, tree, beside, outside, kind] = process.argv;
  const at = tree + "/x";
  for (let n = 0; ; n++) {
    if (kind === "file") {
      writeFileSync(beside + "/honest", "honest");
      renameSync(beside + "/honest", at);
      symlinkSync(outside + "/secret", beside + "/link");
      renameSync(beside + "/link", at);
    } else {
      mkdirSync(beside + "/" + n);
      writeFileSync(beside + "/" + n + "/secret", "honest");
      renameSync(beside + "/" + n, at);
      renameSync(at, beside + "/" + n);
      rmSync(beside + "/" + n, { recursive: true });
      symlinkSync(outside, at);
      rmSync(at);
    }
    if (n === 10) console.log("ready");
  }`;

test.each(["file", "folder"])("a link that takes a %s's place while the folder is read leads nowhere", async (kind) => {
  using dir = tempDir("race");
  const [tree, beside, outside] = ["tree", "beside", "outside"].map((name) => join(dir.path, name)) as [string, string, string];
  for (const folder of [tree, beside, outside]) mkdirSync(folder);
  writeFileSync(join(outside, "secret"), SECRET);
  writeFileSync(join(tree, "a.cpp"), "a");
  const swapper = spawn(process.execPath, ["-e", SWAP, tree, beside, outside, kind], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    await new Promise((resolve) => swapper.stdout.once("data", resolve));
    let read = 0;
    for (let i = 0; i < 20_000; i++)
      try {
        for (const bytes of readCandidateFiles(tree).values()) expect(Buffer.from(bytes).toString()).not.toContain(SECRET);
        read++;
      } catch (error) {
        // Words for whoever works there, never a fault of ours.
        if (!(error instanceof CandidateFilesError)) throw error;
      }
    expect(read).toBeGreaterThan(0);
  } finally {
    swapper.kill("SIGKILL");
  }
});

test("no more of a folder is read than a tree may hold", () => {
  using dir = tempDir("race");
  for (const name of ["a", "b", "c"]) {
    writeFileSync(join(dir.path, name), "");
    truncateSync(join(dir.path, name), 10 * 2 ** 20);
  }
  expect(() => readCandidateFiles(dir.path)).toThrow(/"b": 10485760 bytes; at most 16777216 are allowed in all/);
  for (let i = 0; i < 4_001; i++) mkdirSync(join(dir.path, "a0", String(i)), { recursive: true });
  expect(() => readCandidateFiles(join(dir.path, "a0"))).toThrow(/more than 4000 files and folders/);
});
