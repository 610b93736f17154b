import { ApiProblem } from "../api/problem.ts";
import { remembered } from "../process/remembered.ts";
import { loadCatalog, type Catalog } from "./catalog.ts";

/** Stacks and skills by the seed's folder; read once a process, so that a campaign does not see files change under it. */
export function catalogLoader(root: string) {
  const load = remembered((seed) => loadCatalog(root, seed));
  return {
    digest: async (seed: string): Promise<string> => {
      try {
        return (await load(seed)).digest;
      } catch (error) {
        throw new ApiProblem("bad-input", `seed: ${error instanceof Error ? error.message : String(error)}`);
      }
    },
    unchanged: async (seed: string, digest: string): Promise<Catalog> => {
      const catalog = await load(seed);
      if (catalog.digest === digest) return catalog;
      throw new Error(`${seed} or prompts/skills changed since this campaign began; restore them and resume it, or begin a new one`);
    },
  };
}
