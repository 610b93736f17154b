import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { DevicePlace, Reference } from "../../gpu-agent/src/accuracy/index.ts";
import { tempDir } from "../kit/temp-dir.ts";

/**
 * A reference by its protocol, for a device with room for one: it ends at once where an earlier one that was not told "--device cpu" still lives. Each writes
 * "model device" to the file `starts`.
 */
const PROGRAM = `
import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
const [folder, model, ...more] = process.argv.slice(2);
const host = more.includes("cpu");
const lives = (pid) => { try { process.kill(pid, 0); return true; } catch { return false; } };
appendFileSync(join(folder, "pids"), "");
const others = readFileSync(join(folder, "pids"), "utf8").split("\\n").filter(Boolean).map(Number);
if (!host && others.some(lives)) { console.error("the device is full"); process.exit(2); }
if (!host) appendFileSync(join(folder, "pids"), process.pid + "\\n");
appendFileSync(join(folder, "starts"), model + (host ? " host" : " device") + "\\n");
const frame = (id, payload) => {
  const head = Buffer.alloc(16);
  [0x53525356, id, 0, payload.length].forEach((word, i) => head.writeUInt32LE(word, 4 * i));
  process.stdout.write(Buffer.concat([head, payload]));
};
frame(0, Buffer.from(JSON.stringify({ protocol: 1, top: 1, vocab: 9, context: 9, layers: 1, threads: 1, kernel: "fake" })));
process.stdin.on("data", (request) => frame(request.readUInt32LE(4), Buffer.alloc(4 * 3)));
process.stdin.on("end", () => process.exit(0));
`;

test("references on one device are there one at a time, each in its turn; while an engine has it they answer on the host", async () => {
  using dir = tempDir("device-place");
  const program = join(dir.path, "reference.mjs");
  writeFileSync(program, PROGRAM);
  const starts = (): string[] => readFileSync(join(dir.path, "starts"), "utf8").trim().split("\n");
  const place = new DevicePlace();
  const of = (model: string): Reference => new Reference({ executable: process.execPath, script: [program, dir.path], model, place });
  await using one = of("one");
  await using two = of("two");
  const ask = (reference: Reference): Promise<unknown> => reference.score([{ tokens: [1] }]);
  await Promise.all([ask(one), ask(one), ask(two), ask(one)]);
  expect(starts()).toEqual(["one device", "two device", "one device"]);

  const ended = await place.fill();
  await Promise.all([ask(two), ask(one)]);
  expect(starts().slice(3)).toEqual(["two host", "one host"]);
  ended();
  ended();
  await ask(one);
  expect(starts().slice(5)).toEqual(["one device"]);
  expect(place.full).toBe(false);
});

test("one that was cancelled, or can't start, keeps nobody from the device", async () => {
  using dir = tempDir("device-place");
  const program = join(dir.path, "reference.mjs");
  writeFileSync(program, PROGRAM);
  const place = new DevicePlace();
  await using broken = new Reference({ executable: "/bin/false", script: [], model: "none", place });
  await using whole = new Reference({ executable: process.execPath, script: [program, dir.path], model: "whole", place });
  const abort = new AbortController();
  const cancelled = whole.score([{ tokens: [1] }], abort.signal);
  const refused = broken.score([{ tokens: [1] }]);
  abort.abort(new Error("enough"));
  await expect(cancelled).rejects.toThrow("enough");
  await expect(refused).rejects.toThrow("the reference ended");
  await expect(whole.score([{ tokens: [1] }])).resolves.toHaveLength(1);
});

test("one that waits for its turn, or reads its model, and is cancelled is told at once; nobody waits for it", async () => {
  using dir = tempDir("device-place");
  const program = join(dir.path, "reference.mjs");
  writeFileSync(program, PROGRAM);
  const silent = join(dir.path, "silent.mjs");
  writeFileSync(
    silent,
    `import { writeFileSync } from "node:fs"; writeFileSync(process.argv[2] + "/reads", ""); setInterval(() => {}, 1000);`,
  );
  const place = new DevicePlace();
  const of = (script: string): Reference => new Reference({ executable: process.execPath, script: [script, dir.path], model: "m", place });
  await using slow = of(silent);
  await using whole = of(program);
  const [reading, waiting, filling] = [new AbortController(), new AbortController(), new AbortController()];
  const first = slow.score([{ tokens: [1] }], reading.signal);
  const second = whole.score([{ tokens: [1] }], waiting.signal);
  const third = place.fill(filling.signal);
  const last = whole.score([{ tokens: [1] }]);
  waiting.abort(new Error("not wanted"));
  await expect(second).rejects.toThrow("not wanted");
  filling.abort(new Error("no engine"));
  await expect(third).rejects.toThrow("no engine");
  await expect.poll(() => existsSync(join(dir.path, "reads"))).toBe(true);
  reading.abort(new Error("enough"));
  await expect(first).rejects.toThrow("enough");
  await expect(last).resolves.toHaveLength(1);
  expect([place.full, readFileSync(join(dir.path, "starts"), "utf8")]).toEqual([false, "m device\n"]);
});

test("one whose first words are none of a reference's is ended, and leaves the device", async () => {
  using dir = tempDir("device-place");
  const odd = join(dir.path, "odd.mjs");
  writeFileSync(
    odd,
    `import { writeFileSync } from "node:fs"; writeFileSync(process.argv[2] + "/pid", String(process.pid)); process.stdout.write("Loading weights: 1 of 9\\n"); setInterval(() => {}, 1000);`,
  );
  await using reference = new Reference({ executable: process.execPath, script: [odd, dir.path], model: "m", place: new DevicePlace() });
  await expect(reference.score([{ tokens: [1] }])).rejects.toThrow("holds no answer frame");
  expect(() => process.kill(Number(readFileSync(join(dir.path, "pid"), "utf8")), 0)).toThrow("ESRCH");
});
