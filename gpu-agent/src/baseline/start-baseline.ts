import type { Device } from "@vibeserve/shared";
import { cpuList } from "../bench/cpu-clock.ts";
import type { Mount } from "../sandbox/sandbox.ts";
import type { RunningStack } from "../serve/running-stack.ts";
import type { ServeDeps } from "../serve/server-spec.ts";
import { startServer } from "../serve/start-server.ts";
import type { Installation } from "./install.ts";
import type { LoadedRecipe, Setting } from "./recipe.ts";

/** Starts an installed engine with one setting of its recipe, in the sandbox (no network) like any candidate. Throws StackError as startServer does. */
export async function startBaseline(
  deps: ServeDeps,
  recipe: LoadedRecipe,
  installed: Installation,
  setting: Setting,
  modelPath: string,
  device: Device,
  signal: AbortSignal,
): Promise<RunningStack> {
  // A venv's interpreter is a link, and its libraries are found beside it: everything keeps its path inside.
  const mounts = [...new Set([...installed.folders, recipe.folder])].map((from): Mount => ({ from, mode: "ro" }));
  return await startServer(deps, {
    argv: [...recipe.serve, ...setting.args],
    substitutions: (at) => ({
      "${PYTHON}": installed.python,
      "${ENGINE}": installed.engineDir,
      "${RECIPE}": at(recipe.folder),
      "${MODEL}": at(modelPath),
      "${CPUS}": device.cpus,
      "${THREADS}": String(cpuList(device.cpus).length),
    }),
    env: setting.env,
    mounts: [...mounts, { from: modelPath, to: "/model/model.gguf", mode: "ro" }],
    cpus: device.cpus,
    healthTimeoutMs: recipe.healthTimeoutMs,
    provenance: "baseline",
    limits: { memBytes: recipe.memBytes },
    signal,
  });
}
