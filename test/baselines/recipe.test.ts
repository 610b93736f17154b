import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { RECIPES } from "./kit.ts";

interface Recipe {
  v: number;
  kind: string;
  engine: string;
  version: string;
  dialect: string;
  install: { kind: string; requirements?: string[]; argv?: string[] };
  serve: string[];
  sweep: { name: string; args: string[]; env: Record<string, string> }[];
}

const engines = readdirSync(RECIPES).filter((name) => statSync(join(RECIPES, name)).isDirectory());
const PLACEHOLDERS = ["${PYTHON}", "${RECIPE}", "${ENGINE}", "${SOCKET}", "${MODEL}", "${CPUS}", "${THREADS}", "${DEVICES}"];

describe.each(engines)("recipe %s", (folder) => {
  const recipe = JSON.parse(readFileSync(join(RECIPES, folder, "baseline.json"), "utf8")) as Recipe;

  test("names the engine, its version and the dialect that it speaks", () => {
    expect([recipe.v, recipe.kind]).toEqual([1, "baseline"]);
    expect(["openai", "openai-ids", "llama.cpp"]).toContain(recipe.dialect);
    expect(recipe.engine).toMatch(/^[a-z0-9.-]+$/);
  });

  test("installs one exact version", () => {
    if (recipe.install.kind === "pip") {
      expect(recipe.install.requirements?.every((r) => /^[a-z-]+==[\d.]+$/.test(r))).toBe(true);
      expect(recipe.install.requirements?.[0]).toContain(recipe.version);
    } else {
      expect(readFileSync(join(RECIPES, folder, "build.sh"), "utf8")).toContain(`version=${recipe.version}`);
    }
  });

  test("serves one model on one socket, and uses no placeholder that the agent does not know", () => {
    expect(recipe.serve).toEqual(expect.arrayContaining(["${SOCKET}", "${MODEL}"]));
    const used = [...recipe.serve, ...(recipe.install.argv ?? [])].flatMap((a) => a.match(/\$\{\w+\}/g) ?? []);
    expect(used.filter((p) => !PLACEHOLDERS.includes(p))).toEqual([]);
  });

  test("sweeps at most four settings, the first of them as shipped", () => {
    expect(recipe.sweep.length).toBeLessThanOrEqual(4);
    expect(recipe.sweep[0]).toEqual({ name: "as-shipped", args: [], env: {} });
    expect(new Set(recipe.sweep.map((s) => s.name)).size).toBe(recipe.sweep.length);
  });
});
