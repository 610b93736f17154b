import { onProcessors } from "@vibeserve/shared";
import type { Logger } from "pino";
import type { Probed } from "../agent.ts";
import { baselinePython } from "../baseline/installed-engines.ts";
import { BuildCache } from "../build/build-cache.ts";
import type { AgentConfig } from "../config.ts";
import type { DataFolder } from "../data-folder.ts";
import { deviceEnvironment } from "../sandbox/device-nodes.ts";
import { Evaluator } from "./evaluator.ts";
import { jobHandlers } from "./handlers.ts";
import type { JobHandlers } from "./job-context.ts";

export interface Workbench {
  readonly handlers: JobHandlers;
  /** Ends the evaluator's processes. */
  close(): Promise<void>;
}

/** Everything that only jobs need. Loaded with the first of them. */
export async function openWorkbench(
  config: AgentConfig,
  data: DataFolder,
  probed: Probed,
  deviceGone: (deviceId: string) => void,
  log: Logger,
): Promise<Workbench> {
  const python = baselinePython(config);
  const evaluator = new Evaluator({
    dir: data.evaluator,
    cacheDir: config.cache,
    compiler: probed.ownCompiler,
    python,
    threads: probed.cpu.cores,
    env: deviceEnvironment(probed.device),
    accelerator: !onProcessors(probed.device),
    idle: (work, signal) => probed.alone.idle(work, signal),
    log,
  });
  const handlers = await jobHandlers({
    builder: {
      ...{ compiler: probed.compiler, mask: probed.mask, farm: probed.farm },
      cache: new BuildCache(data.builds, config.quotaGib * 3 * 2 ** 28),
    },
    builderOnly: config.builderOnly,
    evaluator,
    alone: probed.alone,
    cacheDir: config.cache,
    evaluatorDir: data.evaluator,
    python,
    peaks: probed.peaks,
    adapters: probed.adapters,
    deviceGone,
  });
  return { handlers, close: async () => evaluator.close() };
}
