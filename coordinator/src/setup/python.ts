import { older } from "../version.ts";
import { runTool } from "./run-tool.ts";
import { SetupError } from "./setup-error.ts";

/** A Python that can fetch wheels. */
export interface Python {
  /** Absolute path of the interpreter. */
  path: string;
  version: string;
}

const step = "python";
/** The oldest Python that pip and OpenVINO GenAI still take; Debian 11's. */
const oldest = "3.9";
const describe = "import sys; print(sys.executable); print('.'.join(map(str, sys.version_info[:3])))";

/** The first of `python3` and `python` on PATH that is new enough; undefined when there is none. pip is not looked for. */
export async function findPython(signal?: AbortSignal): Promise<{ path: string; version: string } | undefined> {
  return (await search(signal)).found;
}

/** The Python whose pip the set-up uses. Rejects with a SetupError when it is missing, too old, or has no pip. */
export async function verifyPython(signal?: AbortSignal): Promise<Python> {
  const { found, tooOld } = await search(signal);
  const fix = `install Python ${oldest} or newer with pip (Debian: \`apt-get install python3 python3-pip\`)`;
  if (found === undefined) {
    throw new SetupError(
      step,
      tooOld === undefined ? "there is no `python3` on PATH" : `Python ${tooOld} is too old: ${oldest} is needed`,
      fix,
    );
  }
  const pip = await runTool([found.path, "-m", "pip", "--version"], { signal, cwd: "/" });
  if (pip.kind === "ended" && pip.code === 0 && /^pip \S/m.test(pip.text)) return found;
  const said = pip.kind === "missing" ? "" : pip.text.trim().split("\n").at(-1);
  throw new SetupError(
    step,
    `${found.path} (Python ${found.version}) has no working pip${said ? ` (it says: ${said})` : ""}`,
    `install pip for it (Debian: \`apt-get install python3-pip\`; elsewhere \`${found.path} -m ensurepip --user\`)`,
  );
}

async function search(signal: AbortSignal | undefined): Promise<{ found?: { path: string; version: string }; tooOld?: string }> {
  let tooOld: string | undefined;
  for (const name of ["python3", "python"]) {
    const answer = await runTool([name, "-c", describe], { signal, cwd: "/" });
    if (answer.kind !== "ended" || answer.code !== 0) continue;
    const [path = "", version = ""] = answer.text.trim().split("\n").slice(-2);
    if (!older(version, oldest)) return { found: { path, version } };
    tooOld ??= version;
  }
  return tooOld === undefined ? {} : { tooOld };
}
