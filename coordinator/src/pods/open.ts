import type { Settings } from "../config.ts";
import { podApi } from "./pod-api.ts";
import { readPodClasses } from "./pod-class.ts";
import { WorkerPods, type WorkerPodsDeps } from "./worker-pods.ts";

/** Throws where the file of classes is not good. */
export function openWorkerPods(
  { file, api, ...access }: NonNullable<Settings["workerPods"]>,
  deps: Omit<WorkerPodsDeps, "classes" | "api">,
): WorkerPods {
  const classes = readPodClasses(file);
  return new WorkerPods({ ...deps, classes, api: podApi(api, access, classes) });
}
