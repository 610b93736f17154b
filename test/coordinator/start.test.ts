import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import type { Report } from "../../coordinator/src/report/report-model.ts";
import { gone, site, SLOW } from "../kit/sites.ts";
import { SKILLS } from "../kit/tiny-stack.ts";
import { alive } from "../kit/vibeserve-process.ts";

// Each test starts many processes; on a machine that is busy with other suites that takes several times as long as alone.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

test("start runs a campaign to its report and its champion's branch, prints one JSON object, and leaves nothing running", async () => {
  using s = site();
  const command = s.at.start(s.at.target, "--json");
  await command.printed(/seed drafted/);
  const pids = Object.values(s.at.pids());
  expect(pids.every(alive)).toBe(true);
  expect(await command.ended).toBe(0);
  expect(JSON.parse(command.out())).toMatchObject({
    v: 1,
    kind: "report",
    campaigns: [{ target: "tiny", outcome: "proven", simulated: true }],
  });
  expect(existsSync(join(s.at.data, "report.html"))).toBe(true);
  expect(JSON.parse(readFileSync(join(s.at.data, "report.json"), "utf8"))).toMatchObject({
    campaigns: [{ repeat: `npm start -- ${s.at.target}` }],
  });
  const [campaign] = (JSON.parse(command.out()) as Report).campaigns;
  const clone = join(s.at.dir, "clone");
  execFileSync("git", ["clone", "--quiet", join(s.at.data, "git", `${campaign?.id ?? ""}.git`), clone]);
  expect(existsSync(join(clone, "bindings/linear/linear-fast.cpp"))).toBe(true);
  await gone(pids);
  expect(existsSync(join(s.at.data, "client.json"))).toBe(false);
});

test("of two starts in one folder the second says who holds it, and ends with 2", async () => {
  // The first must still be at work when the others have looked.
  using s = site({ FAKE_AGENT_WORK_MS: "20000" });
  const first = s.at.start(s.at.target);
  await first.printed(/seed drafted/);
  const second = s.at.start(s.at.target);
  expect(await second.ended).toBe(2);
  expect(second.err()).toMatch(new RegExp(`data is in use by "vibeserve start", pid ${first.child.pid ?? 0}, since 20`));
  const up = s.at.run("up");
  expect(await up.ended).toBe(2);
  expect(up.err()).toMatch(/in use by "vibeserve up", pid \d+, since 20/);
  first.child.kill("SIGKILL");
});

test("a campaign that proves nothing ends with 1 and its report as the one JSON object", async () => {
  using s = site();
  for (const { id, truth } of SKILLS) if (truth > 1) rmSync(join(s.at.dir, "root/prompts/skills", id), { recursive: true });
  const command = s.at.start(s.at.target, "--json");
  expect(await command.ended).toBe(1);
  expect(JSON.parse(command.out())).toMatchObject({ v: 1, kind: "report", campaigns: [{ outcome: "not-proven", champion: null }] });
  expect(command.err()).toMatch(/vibeserve: no champion: not-proven/);
});

test("Ctrl-C pauses and stops all in order; plain start then says what is unfinished, and --resume ends it as it was begun", async () => {
  using s = site(SLOW);
  const first = s.at.start(s.at.target, "--budget", "27h", "--json");
  await first.printed(/e1 proposed/);
  const pids = Object.values(s.at.pids());
  first.child.kill("SIGINT");
  expect(await first.ended).toBe(1);
  expect(first.err()).toMatch(/campaign \S+ is paused; go on with: npm start -- --resume --data data/);
  expect(JSON.parse(first.out())).toMatchObject({ v: 1, kind: "error", message: expect.stringMatching(/is paused; go on/) as string });
  expect(pids.filter(alive)).toEqual([]);
  const plain = s.at.start(s.at.target);
  expect(await plain.ended).toBe(2);
  expect(plain.err()).toMatch(/campaign \S+ \(target tiny\) is paused: .*\n {2}go on with it: npm start -- --resume/);
  const resumed = s.at.start("--resume", "--json");
  expect(await resumed.ended).toBe(0);
  const repeat = `npm start -- ${s.at.target} --budget 27h`;
  expect(JSON.parse(resumed.out())).toMatchObject({ campaigns: [{ repeat }] });
  expect(JSON.parse(readFileSync(join(s.at.data, "report.json"), "utf8"))).toMatchObject({ campaigns: [{ repeat }] });
});

test("a broker's port that is taken is named, with what to do, and ends the command with 3", async () => {
  const holder = createServer().listen(0, "127.0.0.1");
  await once(holder, "listening");
  const { port } = holder.address() as AddressInfo;
  using s = site({ VIBESERVE_PORT: String(port) });
  const message = new RegExp(`the broker can't listen on 127.0.0.1:${port}: the port is taken; .*VIBESERVE_PORT`);
  for (const args of [["up"], ["start", "--no-setup", s.at.target]]) {
    const command = s.at.run(...args, "--json");
    expect(await command.ended).toBe(3);
    expect(command.err()).toMatch(message);
    expect(JSON.parse(command.out())).toMatchObject({
      kind: "error",
      code: "unreachable",
      message: expect.stringMatching(message) as string,
    });
  }
  holder.close();
});

test("when start alone is killed, what it started stops by itself", async () => {
  using s = site(SLOW);
  const first = s.at.start(s.at.target);
  await first.printed(/seed drafted/);
  const pids = Object.values(s.at.pids());
  first.child.kill("SIGKILL");
  await gone(pids);
});
