import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { gone, history, site, SLOW, undisturbed } from "../../kit/sites.ts";
import { alive } from "../../kit/vibeserve-process.ts";

let expected: unknown;
beforeAll(async () => {
  expected = await undisturbed();
});

test("a campaign that was paused with Ctrl-C and resumed ends with the same history", async () => {
  using s = site(SLOW);
  const first = s.at.start(s.at.target);
  await first.printed(/e1 proposed/);
  first.child.kill("SIGINT");
  expect(await first.ended).toBe(1);
  expect(await s.at.start("--resume").ended).toBe(0);
  expect(history(s.at)).toEqual(expected);
});

test("a second Ctrl-C kills at once, and the campaign can still be resumed", async () => {
  using s = site({ FAKE_AGENT_WORK_MS: "2000" });
  const first = s.at.start(s.at.target);
  await first.printed(/seed drafted/);
  const pids = Object.values(s.at.pids());
  first.child.kill("SIGINT");
  await new Promise((resolve) => setTimeout(resolve, 20));
  first.child.kill("SIGINT");
  expect(await first.ended).toBe(1);
  await gone(pids);
  const resumed = s.at.start("--resume");
  await resumed.printed(/seed build ok/);
  resumed.child.kill("SIGKILL");
});

test.each(["coordinator", "broker", "agent"] as const)("kill -9 of the %s in the middle changes nothing about the end", async (victim) => {
  using s = site(SLOW);
  const command = s.at.start(s.at.target);
  await command.printed(/e1 proposed/);
  process.kill(s.at.pids()[victim] ?? 0, "SIGKILL");
  expect(await command.ended).toBe(0);
  expect(history(s.at)).toEqual(expected);
});

test("kill -9 of everything at once: the next start resumes to the same history", async () => {
  using s = site(SLOW);
  const first = s.at.start(s.at.target);
  await first.printed(/e2 proposed/);
  const pids = Object.values(s.at.pids());
  first.child.kill("SIGKILL");
  for (const pid of pids) if (pid !== null) process.kill(pid, "SIGKILL");
  await gone(pids);
  expect(await s.at.start("--resume").ended).toBe(0);
  expect(history(s.at)).toEqual(expected);
});

test("an orphan that did not notice is stopped by the next start", async () => {
  using s = site(SLOW);
  const first = s.at.start(s.at.target);
  await first.printed(/seed drafted/);
  const { agent, broker, coordinator } = s.at.pids();
  // A stopped process can't notice that its channel closed.
  for (const pid of [agent, coordinator]) process.kill(pid ?? 0, "SIGSTOP");
  first.child.kill("SIGKILL");
  await first.ended;
  for (const pid of [agent, coordinator]) expect(alive(pid)).toBe(true);
  const resumed = s.at.start("--resume");
  // They take SIGTERM once they go on; what does not is killed after its grace time.
  const next = setInterval(() => {
    for (const pid of [agent, coordinator]) if (alive(pid)) process.kill(pid ?? 0, "SIGCONT");
  }, 500);
  expect(await resumed.ended).toBe(0);
  clearInterval(next);
  await gone([agent, coordinator, broker]);
});

test("a campaign whose stack changed under it is paused with the reason, not continued on other code", async () => {
  using s = site(SLOW);
  const first = s.at.start(s.at.target);
  await first.printed(/e1 proposed/);
  first.child.kill("SIGINT");
  await first.ended;
  writeFileSync(join(s.at.dir, "root/stacks/tiny/seed/linear.cpp"), "// other code\n");
  const resumed = s.at.start("--resume");
  expect(await resumed.ended).toBe(1);
  expect(resumed.err()).toMatch(/stacks\/tiny or prompts\/skills changed since this campaign began/);
});
