import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { TurnRole } from "@vibeserve/shared";
import { MAX_RETURNS } from "../campaign/experiment.machine.ts";
import { fill } from "./prompt.ts";

/** The stable text of each role, its slots filled. */
export type Roles = Readonly<Record<TurnRole, string>>;

/** Reads prompts/roles. Throws PromptError where a slot is unknown or missing, so that a coordinator with a broken prompt does not start. */
export function loadRoles(root: string): Roles {
  const role = (name: TurnRole, slots: Readonly<Record<string, string>>): string => {
    const path = join(root, "prompts", "roles", `${name}.md`);
    // A tiny installation of a test may have no prompts; then it has no campaigns that need them.
    return existsSync(path) ? fill(path, readFileSync(path, "utf8"), slots) : "";
  };
  const contract = join(root, "docs", "candidate-contract.md");
  return {
    planner: role("planner", {}),
    implementer: role("implementer", {
      returns: String(MAX_RETURNS),
      contract: existsSync(contract) ? readFileSync(contract, "utf8") : "",
    }),
    judge: role("judge", {}),
    evaluator: role("evaluator", {}),
  };
}
