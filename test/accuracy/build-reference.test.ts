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
