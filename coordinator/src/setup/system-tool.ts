import { runTool } from "./run-tool.ts";

/** Debian keeps daemons in /usr/sbin, which is not on every user's PATH. */
const alsoIn = ["/usr/sbin", "/usr/local/sbin"];

/** Absolute path of an installed program, or undefined. */
export async function findProgram(name: string, signal?: AbortSignal): Promise<string | undefined> {
  const script = 'PATH="$PATH:$2" command -v -- "$1"';
  const answer = await runTool(["/bin/sh", "-c", script, "sh", name, alsoIn.join(":")], { signal });
  const path = answer.kind === "ended" && answer.code === 0 ? answer.text.trim() : "";
  return path.startsWith("/") ? path : undefined;
}

/** What `<program> --version` prints, or undefined if it does not run. */
export async function versionText(program: string, signal?: AbortSignal): Promise<string | undefined> {
  const answer = await runTool([program, "--version"], { signal });
  return answer.kind === "ended" && answer.code === 0 ? answer.text.trim() : undefined;
}
