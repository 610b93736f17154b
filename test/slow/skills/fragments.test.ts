import { join } from "node:path";
import { expect, it } from "vitest";
import { findProgram } from "../../../coordinator/src/setup/index.ts";
import { loadSkills } from "../../../coordinator/src/stack/catalog.ts";
import { lintSkills } from "../../../coordinator/src/stack/skill-lint.ts";

it("every skill's worked fragment compiles, where this machine has a compiler for its language", async () => {
  const skills = await loadSkills(join(import.meta.dirname, "../../.."));
  const { problems, uncompiled } = await lintSkills(skills, { find: findProgram });
  expect(problems).toEqual([]);
  expect(uncompiled.length).toBeLessThan(skills.size / 2);
}, 300_000);
