import { Target } from "@vibeserve/shared";
import type { AgentConfig } from "../config.ts";
import { findTool } from "../sandbox/probe-sandbox.ts";
import { findInstalled } from "./install.ts";
import { loadRecipe } from "./recipe.ts";

/** The Python that baselines are installed with, and that the reference of Hugging Face checkpoints runs in: the one that was named, or the system's. */
export const baselinePython = ({ baselinePython: own, python }: Pick<AgentConfig, "baselinePython" | "python">): string | null =>
  own ?? python ?? findTool("python3") ?? findTool("python");

/** Of the engines that targets may name, those that are installed as their recipes say now. A broken recipe is for its job to report. */
export async function installedEngines(baselinesDir: string, cacheDir: string, python: string | null): Promise<string[]> {
  if (python === null) return [];
  const found: string[] = [];
  for (const engine of Target.shape.baselines.element.options) {
    const recipe = await loadRecipe(baselinesDir, engine).catch(() => null);
    if (recipe && (await findInstalled(recipe, { cacheDir, python }))) found.push(engine);
  }
  return found;
}
