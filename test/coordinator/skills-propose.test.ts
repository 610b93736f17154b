import { execFileSync } from "node:child_process";
import { appendFileSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { skillFindings } from "../../coordinator/src/findings/skill-finding.ts";
import { loadSkills } from "../../coordinator/src/stack/catalog.ts";
import { lintSkills } from "../../coordinator/src/stack/skill-lint.ts";
import { additionPatch, newLines, withLines } from "../../coordinator/src/stack/skill-patch.ts";
import { World } from "../campaign/world.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { SKILLS } from "../kit/tiny-stack.ts";
import { Site } from "../kit/vibeserve-process.ts";

vi.setConfig({ testTimeout: 120_000 });

const skillPath = (site: Site, id: string) => join(site.dir, "root/prompts/skills", id, "SKILL.md");
const skillText = (site: Site, id: string) => readFileSync(skillPath(site, id), "utf8");

test("what ended campaigns measured becomes a patch that git applies; the command itself changes nothing, and says nothing twice", async () => {
  using dir = tempDir("propose");
  const site = new Site(dir.path);
  // Bodies as long as shipped ones: next to a bare title, findings of one campaign would be most of a text, and alike.
  for (const { id } of SKILLS)
    appendFileSync(skillPath(site, id), Array.from({ length: 70 }, (_, i) => `${id}${i} is ${id}${i * 7}\n`).join(""));
  const verb = async (...args: string[]) => {
    const command = site.run(...args);
    return { code: await command.ended, out: command.out(), err: command.err() };
  };
  try {
    expect(await verb("skills", "propose")).toMatchObject({ code: 2, err: expect.stringMatching(/holds no campaigns/) as string });
    expect(await verb("skills", "praise")).toMatchObject({ code: 2, err: expect.stringMatching(/allowed: propose/) as string });
    // start leaves a folder without a coordinator; the second time one runs.
    expect(await site.start(site.target, "--baseline", "none").ended).toBe(0);
    const before = skillText(site, "threads");
    const { code, out } = await verb("skills", "propose");
    expect(code).toBe(0);
    expect(skillText(site, "threads")).toBe(before);
    const up = site.run("up");
    await up.printed(/coordinator ready/);
    expect((await verb("skills", "propose")).out).toBe(out);
    up.child.kill("SIGTERM");
    await up.ended;
    const root = join(site.dir, "root");
    execFileSync("git", ["apply", "--check", "-"], { cwd: root, input: out });
    execFileSync("git", ["apply", "-"], { cwd: root, input: out });
    expect(skillText(site, "threads").startsWith(before)).toBe(true);
    expect(skillText(site, "threads").slice(before.length)).toMatch(
      /^\n## Measured\n- \d{4}-\d\d-\d\d, target tiny, \S+, \d+ cores \(.*, SIMULATED\): proven 1\.9\d\d× \[[\d.]+, [\d.]+\], \d pairs against seed\/threading\.cpp; campaign tiny-\w+ e2\.\n$/,
    );
    expect(skillText(site, "head-slow")).toMatch(/: disproven 0\.8\d\d× .* against seed\/head\.cpp/);
    expect((await verb("skills", "propose")).out).toMatch(/nothing that the skills do not hold/);
  } finally {
    site.cleanUp();
  }
});

const world = () => new World([{ id: "two-threads", seam: "threading", stated: 2, truth: 1.9 }]);

test("the shipped skills still pass the linter with findings of campaigns in them", async () => {
  const root = join(import.meta.dirname, "..", "..");
  using dir = tempDir("propose");
  cpSync(join(root, "prompts"), join(dir.path, "prompts"), { recursive: true });
  const campaigns = ["a", "b", "c"].flatMap((campaign) => {
    const w = world();
    w.run();
    return skillFindings(w.events).map((f) => ({ ...f, campaign, target: campaign }));
  });
  const all = await loadSkills(dir.path);
  const patches = [...all.keys()].map((id) => {
    const path = `prompts/skills/${id}/SKILL.md`;
    const text = readFileSync(join(dir.path, path), "utf8");
    const lines = newLines(text, campaigns);
    expect(lines).toHaveLength(3);
    return { path, patch: additionPatch(path, text, lines), becomes: withLines(text, lines) };
  });
  execFileSync("git", ["apply", "-"], { cwd: dir.path, input: patches.map((p) => p.patch).join("") });
  for (const { path, becomes } of patches) expect(readFileSync(join(dir.path, path), "utf8")).toBe(becomes);
  const { problems } = await lintSkills(await loadSkills(dir.path), { find: () => Promise.resolve(undefined) });
  expect(problems).toEqual([]);
});

test("a section that is there is added to at its end, wherever it stands", () => {
  using dir = tempDir("propose");
  const text = "# T\n\n## Measured\n- one\n\n## Breaks\nnothing\n";
  mkdirSync(join(dir.path, "p"));
  writeFileSync(join(dir.path, "p/S.md"), text);
  execFileSync("git", ["apply", "-"], { cwd: dir.path, input: additionPatch("p/S.md", text, ["- two", "- three"]) });
  expect(readFileSync(join(dir.path, "p/S.md"), "utf8")).toBe("# T\n\n## Measured\n- one\n- two\n- three\n\n## Breaks\nnothing\n");
});

test("an idea that was given up is told with its reason, made harmless; several at once and what has not ended say nothing", () => {
  const w = world();
  while (!w.state.experiments.length) w.run(1);
  w.append({
    type: "experiment.settled",
    experimentId: "e1",
    outcome: "implementation_failed",
    strategy: "abandoned",
    reason: "one core\n```[x](../gone/SKILL.md)\u001b[2J <b>",
    ratio: null,
    checkpoint: "discard",
  });
  expect(skillFindings(w.events)).toEqual([]);
  w.run();
  const [given, ...rest] = skillFindings(w.events);
  expect(rest).toEqual([]);
  const told = given ? [given] : [];
  expect(newLines("", told)).toEqual([
    '- 1970-01-01, target sim, avx2, 2 cores (simulated, SIMULATED): abandoned; "one core x(../gone/SKILL.md) 2J b"; campaign sim e1.',
  ]);
  // Told once, whichever campaign's name begins alike.
  expect(newLines("… campaign sim e10.", told)).toHaveLength(1);
  expect(newLines("… campaign sim e1.", told)).toEqual([]);
});
