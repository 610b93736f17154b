import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { pino } from "pino";
import { expect, test } from "vitest";
import { buildReference } from "../../gpu-agent/src/accuracy/index.ts";
import { onlyWeights } from "../../gpu-agent/src/worker/weights.ts";
import { Evaluator } from "../../gpu-agent/src/worker/evaluator.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { weightsPath } from "../kit/weights.ts";

/** A program that says its version and "compiles" as a compiler does; how often it did is in the file `compiled`. */
function fakeCompiler(dir: string): { argv: string[]; compiled: () => number } {
  const [path, count] = [join(dir, "c++"), join(dir, "compiled")];
  const script = `#!/bin/sh
[ "$1" = --version ] && { echo "fake 1.0"; exit; }
while [ "$1" != -o ]; do shift; done
echo "a program" > "$2"
chmod 755 "$2"
echo >> ${count}
`;
  writeFileSync(path, script, { mode: 0o755 });
  return { argv: [path], compiled: () => (existsSync(count) ? readFileSync(count, "utf8").length : 0) };
}

test.for([
  ["changed", (path: string) => writeFileSync(path, "another program")],
  ["removed", (path: string) => rmSync(path)],
  ["without a seal", (path: string) => rmSync(`${path}.sha256`)],
  ["with the seal of something else", (path: string) => writeFileSync(`${path}.sha256`, "ab".repeat(32))],
] as const)("the reference's executable is built once, and again when it is found %s", async ([, damage]) => {
  using dir = tempDir("build-reference");
  const { argv: compiler, compiled } = fakeCompiler(dir.path);
  const options = { compiler, cacheDir: join(dir.path, "cache") };
  const path = await buildReference(options);
  expect(await buildReference(options)).toBe(path);
  expect(compiled()).toBe(1);
  damage(path);
  expect(await buildReference(options)).toBe(path);
  expect(compiled()).toBe(2);
  expect(readFileSync(path, "utf8")).toBe("a program\n");
  expect(await buildReference(options)).toBe(path);
  expect(compiled()).toBe(2);
});

test("nothing is scored in the background while a job has an accelerator, neither for a build beside it nor when that ends", async () => {
  using dir = tempDir("build-reference");
  const [started, program] = [join(dir.path, "started"), join(dir.path, "program")];
  writeFileSync(program, `#!/bin/sh\ntouch ${started}\nexit 1\n`);
  const compiler = join(dir.path, "c++");
  writeFileSync(
    compiler,
    `#!/bin/sh\n[ "$1" = --version ] && { echo "fake 1.0"; exit; }\nwhile [ "$1" != -o ]; do shift; done\ncp ${program} "$2"\nchmod 755 "$2"\n`,
    { mode: 0o755 },
  );
  const cacheDir = join(dir.path, "cache");
  mkdirSync(join(cacheDir, "weights"), { recursive: true });
  symlinkSync(weightsPath(), join(cacheDir, "weights", basename(weightsPath())));
  let idled = 0;
  const evaluator = new Evaluator({
    dir: dir.path,
    cacheDir,
    compiler: { name: "gcc", argv: [compiler], version: "1", digest: "", mounts: [] },
    threads: 1,
    idle: async () => {
      idled++;
    },
    log: pino({ level: "silent" }),
  });
  const release = evaluator.hold();
  evaluator.prepare("c1");
  await evaluator.rest();
  evaluator.wake();
  expect([existsSync(started), idled]).toEqual([false, 0]);
  release();
  evaluator.wake();
  await evaluator.rest();
  expect([existsSync(started), idled]).toEqual([false, 1]);
  evaluator.prepare("c1");
  await expect.poll(() => existsSync(started), { timeout: 20_000 }).toBe(true);
  await evaluator.close();
}, 60_000);

test("an agent looks at the reference's executable before each job that judges, not only at its start", async () => {
  using dir = tempDir("build-reference");
  const { argv, compiled } = fakeCompiler(dir.path);
  const cacheDir = join(dir.path, "cache");
  mkdirSync(join(cacheDir, "weights"), { recursive: true });
  symlinkSync(weightsPath(), join(cacheDir, "weights", basename(weightsPath())));
  const ref = await onlyWeights(cacheDir);
  if (!ref) throw new Error("no weights");
  const compiler = { name: "gcc", argv, version: "1", digest: "", mounts: [] } as const;
  const evaluator = new Evaluator({
    dir: dir.path,
    cacheDir,
    compiler,
    threads: 1,
    idle: (work, signal) => work(signal),
    log: pino({ level: "silent" }),
  });
  const { referenceOptions } = await evaluator.model(ref);
  await evaluator.model(ref);
  expect(compiled()).toBe(1);
  writeFileSync(referenceOptions.executable, "a generous judge");
  const again = await evaluator.model(ref);
  expect(compiled()).toBe(2);
  expect(readFileSync(again.referenceOptions.executable, "utf8")).toBe("a program\n");
  await evaluator.close();
});
