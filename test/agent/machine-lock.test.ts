import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, expect, it } from "vitest";
import { takeMachine, type TakeOptions } from "../../gpu-agent/src/machine/machine-lock.ts";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { TinyCoordinator } from "./fleet-kit.ts";
import { candidateFiles } from "./tree-kit.ts";

const dir = tempDir("machine-lock");
afterAll(() => dir[Symbol.dispose]());
const LOCK = join(import.meta.dirname, "../../gpu-agent/src/machine/machine-lock.ts");
const linux = process.platform === "linux";
let names = 0;
const fresh = (): string => `test-lock-${process.pid}-${names++}`;
const never = new AbortController().signal;
const taking = (name: string, who: string, more: Partial<TakeOptions> = {}): ReturnType<typeof takeMachine> =>
  takeMachine(name, { who, signal: never, ...more });

it.runIf(linux)("is passed on in the order of asking, those in the background last, and each knows whom it waits for", async () => {
  const name = fresh();
  const got: string[] = [];
  const waited: string[] = [];
  const first = await taking(name, "first");
  const line = [];
  for (const who of ["filler", "second", "third"]) {
    const inLine = Promise.withResolvers<undefined>();
    const more = {
      background: who === "filler",
      waits: (holder: string) => {
        waited.push(`${who} for ${holder}`);
        inLine.resolve(undefined);
      },
    };
    line.push(
      taking(name, who, more).then((hold) => {
        got.push(who);
        hold.release();
      }),
    );
    await inLine.promise;
  }
  first.release();
  first.release();
  await Promise.all(line);
  expect(got).toEqual(["second", "third", "filler"]);
  expect(waited.slice(0, 3)).toEqual(["filler for first", "second for first", "third for first"]);
});

it.runIf(linux)("who passed it on does not take it back before those who waited", async () => {
  const name = fresh();
  const first = await taking(name, "first");
  const script = `import { takeMachine } from ${JSON.stringify(LOCK)};
    const hold = await takeMachine(${JSON.stringify(name)}, { who: "other", signal: new AbortController().signal, waits: () => console.log("waits") });
    hold.release();`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  let exited = false;
  const exit = once(child, "exit").then(() => (exited = true));
  await once(child.stdout, "data");
  first.release();
  const again = await taking(name, "first again");
  // A process ends when it has let go; had this one taken it back at once, the other would still wait.
  await Promise.race([exit, sleep(2_000)]);
  again.release();
  expect(exited).toBe(true);
});

it.runIf(linux)("who works in the background is told that it is wanted; who waits no longer leaves the line", async () => {
  const name = fresh();
  const wanted = Promise.withResolvers<undefined>();
  const filler = await taking(name, "filler", { background: true, wanted: () => wanted.resolve(undefined) });
  const stop = new AbortController();
  const given = taking(name, "gives up", { signal: stop.signal });
  await wanted.promise;
  stop.abort(new Error("deadline"));
  await expect(given).rejects.toThrow("deadline");
  filler.release();
  (await taking(name, "next")).release();
});

it.runIf(linux)("a stranger that says nothing, or nonsense, holds nobody up", async () => {
  const name = fresh();
  const hold = await taking(name, "holder");
  const silent = createConnection({ path: `\0${name}` });
  const loud = createConnection({ path: `\0${name}` });
  for (const socket of [silent, loud]) socket.on("error", () => undefined).resume();
  loud.write("x".repeat(5_000));
  await once(loud, "close");
  hold.release();
  (await taking(name, "next")).release();
  silent.destroy();
});

it.runIf(linux)("kill -9 of its holder frees it", async () => {
  const name = fresh();
  const script = `import { takeMachine } from ${JSON.stringify(LOCK)};
    await takeMachine(${JSON.stringify(name)}, { who: "child", signal: new AbortController().signal });
    console.log("held"); setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  let held = "";
  const next = taking(name, "next", {
    waits: (holder) => {
      held = holder;
      child.kill("SIGKILL");
    },
  });
  (await next).release();
  expect(held).toBe("child");
});

it.runIf(linux)("builds of two agents on one machine never overlap: one machine is one domain of the scheduler", async () => {
  const fleet = new TinyCoordinator(await startBroker(join(dir.path, "broker")), join(dir.path, "agents"));
  const name = fresh();
  try {
    await fleet.open();
    for (const id of ["one", "two"]) {
      await fleet.agent(id, id, "--machine-lock", name);
    }
    // Each build records when it ran, in what it makes.
    const build = 'from=$(date +%s%N)\nsleep 0.4\nprintf "#!/bin/sh\\n# %s %s\\n" "$from" "$(date +%s%N)" > "$2"\nchmod +x "$2"\n';
    const slow = (mark: string): Map<string, Uint8Array> =>
      candidateFiles("plain", { "build.sh": `#!/bin/sh\n# ${mark}\nset -e\n${build}` });
    const jobs = [];
    for (const [i, pool] of ["one", "two", "one", "two"].entries()) jobs.push(await fleet.build(pool, slow(String(i))));
    await fleet.until("all four", () => fleet.results.length === jobs.length, 60_000);
    expect(fleet.results.map((r) => r.outcome.status)).toEqual(["built", "built", "built", "built"]);
    expect(fleet.progress.map((p) => p.phase).filter((phase) => phase.startsWith("waits for the machine"))).toEqual([]);
    const recorded = ["one", "two"].flatMap((id) => {
      const builds = join(fleet.dataOf(id), "builds");
      const made = readdirSync(builds, { withFileTypes: true }).filter((entry) => entry.isDirectory());
      return made.map(
        (entry) =>
          readFileSync(join(builds, entry.name, "stack"), "utf8")
            .match(/\d+/g)
            ?.map(BigInt) ?? [],
      );
    });
    expect(recorded).toHaveLength(jobs.length);
    recorded.sort(([a = 0n], [b = 0n]) => (a < b ? -1 : 1));
    for (const [i, [from = 0n]] of recorded.entries()) expect(from).toBeGreaterThan(recorded[i - 1]?.[1] ?? 0n);
  } finally {
    await fleet.close();
  }
});
