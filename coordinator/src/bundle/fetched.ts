import { runTool } from "../setup/run-tool.ts";
import { SetupError } from "../setup/index.ts";

/** A gigabyte at 1 MB/s, with room. */
const FETCH_MS = 30 * 60_000;

/** Runs a tool that fetches or unpacks. Throws SetupError with the last that it said where it fails. */
export async function fetched(step: string, argv: [string, ...string[]], cwd: string, signal: AbortSignal): Promise<void> {
  const end = await runTool(argv, { cwd, signal, deadlineMs: FETCH_MS });
  if (end.kind === "ended" && end.code === 0) return;
  const said = end.kind === "missing" ? `there is no ${argv[0]}` : end.text.trim().split("\n").slice(-3).join(" / ");
  throw new SetupError(step, `what the archive holds could not be fetched: ${said}`, "see that message");
}
