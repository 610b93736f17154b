import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { findProgram } from "../../coordinator/src/setup/index.ts";
import { loadSkills } from "../../coordinator/src/stack/catalog.ts";
import { parseSkillFile, type SkillFile } from "../../coordinator/src/stack/skill-file.ts";
import { lintSkills } from "../../coordinator/src/stack/skill-lint.ts";
import { admits, scopeOf } from "../../coordinator/src/stack/skill-scope.ts";
import { device, target } from "./world.ts";

const FRONT = `---
id: ID
title: t
summary: s
appliesTo: { devices: [cpu] }
seams: [linear]
requires: {}
expectedGain: { metric: m, ratio: 1.1, source: s }
activation: a
failureModes: [f]
sources:
  - { title: a, url: "https://example.org/a", version: "1" }
  - { title: b, url: "https://example.org/b", version: "2" }
---
`;
const FRAGMENT = "```cpp fragment\nint twice(int x) { return 2 * x; }\n```\n";
/** 70 lines of words that no other seed shares. */
const prose = (seed: string): string =>
  Array.from({ length: 70 }, (_, i) => `${seed}${i} is ${seed}${i * 7} of ${seed}${i * 3}`).join("\n");
const body = (seed: string, fragment = FRAGMENT): string => `## What\n## When\n## How\n${prose(seed)}\n${fragment}## Check\n## Breaks\n`;
const skill = (id: string, text: string, front = FRONT): [string, SkillFile] => [
  id,
  parseSkillFile(`skills/${id}/SKILL.md`, front.replace("ID", id) + text),
];
const none = { find: () => Promise.resolve(undefined) };
const lint = async (...entries: [string, SkillFile][]) => {
  const { problems } = await lintSkills(new Map(entries), { find: findProgram });
  return problems.map((p) => `${p.id}: ${p.message}`);
};

describe("the linter of skills", () => {
  it("has nothing to say of a good one", async () => {
    expect(await lint(skill("a", body("x")), skill("b", body("y")))).toEqual([]);
  });

  it.each([
    ["short", "## What\n## When\n## How\n## Check\n## Breaks\n" + FRAGMENT, /body has 8 lines that hold text, needs 60/],
    ["no part", body("x").replace("## Breaks\n", ""), /no heading "## Breaks"/],
    ["no fragment", body("x", ""), /has 0 fenced blocks marked "fragment"/],
    ["an unknown language", body("x", FRAGMENT.replace("cpp", "cobol")), /language "cobol" is not one of/],
    ["a dead link", `${body("x")}[it](../gone/SKILL.md)\n`, /links to skill "gone"/],
  ])("catches %s", async (_what, text, message) => {
    expect((await lint(skill("a", text)))[0]).toMatch(message);
  });

  it("catches a fragment that does not compile, and says what the compiler said", async () => {
    const [problem] = await lint(skill("a", body("x", FRAGMENT.replace("2 * x", "2 * y"))));
    expect(problem).toMatch(/cpp fragment does not compile: .*y.*was not declared/s);
    const { uncompiled } = await lintSkills(new Map([skill("a", body("x"))]), none);
    expect(uncompiled).toEqual(["a"]);
  });

  it("catches bodies that are mostly each other's words", async () => {
    expect(await lint(skill("a", body("x")), skill("b", body("x")))).toEqual([expect.stringMatching(/^a: shares \d+ % .* with b$/)]);
  });

  it("catches references to skills that do not exist, a missing source, and a binding without a stack", async () => {
    const front = FRONT.replace("requires: {}", "requires: { skills: [gone] }\nconflicts: [other]\nbinding: linear/x.cpp").replace(
      / {2}- \{ title: b.*\n/,
      "",
    );
    const problems = await lint(skill("a", body("x"), front));
    for (const message of [
      /"gone", which does not exist/,
      /"other", which does not exist/,
      /1 primary sources, needs 2/,
      /must name the stacks/,
    ])
      expect(problems).toContainEqual(expect.stringMatching(message));
  });
});

describe("what an agent sees of the skills", () => {
  it("is what fits its device, architecture and model", async () => {
    const of = scopeOf(target, device);
    const scope = { stacks: [], devices: ["cpu" as const], arch: [], models: [], workloads: [] };
    expect(admits(scope, of)).toBe(true);
    expect(admits({ ...scope, devices: ["nvidia"] }, of)).toBe(false);
    expect(admits({ ...scope, arch: ["avx512f"] }, of)).toBe(false);
    expect(admits({ ...scope, arch: ["avx512f"] }, scopeOf(target, null))).toBe(true);
    expect(admits({ ...scope, arch: ["avx512f", "avx2"] }, of)).toBe(true);
    expect(admits({ ...scope, models: ["whisper"] }, of)).toBe(false);
    const shipped = await loadSkills(join(import.meta.dirname, "..", ".."));
    expect([...shipped.values()].filter(({ skill }) => admits(skill.appliesTo, of)).length).toBeGreaterThan(5);
  });
});
