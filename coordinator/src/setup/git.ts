import { older } from "../version.ts";
import { runTool } from "./run-tool.ts";
import { SetupError } from "./setup-error.ts";

/** `git init --initial-branch` is there from 2.28 on. */
export const OLDEST_GIT = "2.28";

/** Looks for git as the checkpoints call it: by name, on PATH. Nothing is fetched. Rejects with a SetupError where it is missing, old or does not run. */
export async function ensureGit(signal?: AbortSignal): Promise<{ value: undefined; note: string }> {
  const answer = await runTool(["git", "--version"], { signal, cwd: "/" });
  const version = answer.kind === "ended" ? /^git version (\d+\.\d+\S*)/m.exec(answer.text)?.[1] : undefined;
  if (version !== undefined && !older(version, OLDEST_GIT)) return { value: undefined, note: version };
  const said = answer.kind === "missing" ? "" : answer.text.trim().split("\n").at(-1);
  const found =
    version !== undefined
      ? `git ${version} is too old: ${OLDEST_GIT} is needed`
      : answer.kind === "missing"
        ? "there is no `git` on PATH"
        : `\`git --version\` does not answer${said ? ` (it says: ${said})` : ""}`;
  throw new SetupError("git", found, "install git 2.28 or newer (Debian: `apt-get install git`, macOS: `xcode-select --install`)");
}
