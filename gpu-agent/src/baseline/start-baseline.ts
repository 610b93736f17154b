import { constants } from "node:fs";
import { chmod, copyFile, mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { cpuList } from "../bench/cpu-clock.ts";
import type { Mount } from "../sandbox/sandbox.ts";
import type { RunningStack } from "../serve/running-stack.ts";
import type { ServeDeps } from "../serve/server-spec.ts";
import { startServer } from "../serve/start-server.ts";
import type { JobContext } from "../worker/job-context.ts";
import type { Installation } from "./install.ts";
import type { LoadedRecipe, Setting } from "./recipe.ts";

/**
 * Starts an installed engine with one setting of its recipe, in the sandbox (no network) like any candidate. Of a GGUF it gets a copy of its own,
 * writable, since OpenVINO opens a GGUF for writing though it only reads; the copy goes with the server. A folder is shown read-only. Throws StackError as startServer does.
 */
export async function startBaseline(
  deps: ServeDeps,
  recipe: LoadedRecipe,
  installed: Installation,
  setting: Setting,
  modelPath: string,
  { device, devices: { length: devices }, signal }: Pick<JobContext, "device" | "devices" | "signal">,
): Promise<RunningStack> {
  const copy = (await stat(modelPath)).isDirectory() ? null : await copyOf(modelPath);
  const weights = copy === null ? modelPath : join(copy, "model.gguf");
  const drop = async (): Promise<void> => {
    if (copy !== null) await rm(copy, { recursive: true, force: true });
  };
  // A venv's interpreter is a link, and its libraries are found beside it: everything keeps its path inside.
  const mounts = [...new Set([...installed.folders, recipe.folder])].map((from): Mount => ({ from, mode: "ro" }));
  try {
    const stack = await startServer(deps, {
      argv: [...recipe.serve, ...setting.args],
      substitutions: (at) => ({
        "${PYTHON}": installed.python,
        "${ENGINE}": installed.engineDir,
        "${RECIPE}": at(recipe.folder),
        "${MODEL}": at(weights),
        "${CPUS}": device.cpus,
        "${DEVICES}": String(devices),
        "${THREADS}": String(cpuList(device.cpus).length),
      }),
      env: setting.env,
      mounts: [...mounts, { from: weights, to: `/model/${basename(weights)}`, mode: copy === null ? "ro" : "rw" }],
      cpus: device.cpus,
      healthTimeoutMs: recipe.healthTimeoutMs,
      provenance: "baseline",
      limits: { memBytes: recipe.memBytes * devices },
      signal,
    });
    return { ...stack, stop: () => stack.stop().finally(drop) };
  } catch (error) {
    await drop();
    throw error;
  }
}

/** A folder with a copy of a GGUF, for whichever user the sandbox drops to. */
async function copyOf(modelPath: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "vs-weights-"));
  const weights = join(folder, "model.gguf");
  try {
    await copyFile(modelPath, weights, constants.COPYFILE_FICLONE);
    await chmod(folder, 0o755);
    await chmod(weights, 0o666);
    return folder;
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}
