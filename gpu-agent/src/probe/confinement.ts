import { existsSync } from "node:fs";
import { readText } from "../process/read-text.ts";
import { cgroupLimits } from "./cpu-topology.ts";

/** What this process is confined to, as an accelerator's labels (the processors' device has the limits in its size); none where nothing confines it. */
export function confinementLabels(root = ""): Record<string, string> {
  const { cpus, memBytes } = cgroupLimits(root);
  const container = containerOf(root);
  return {
    ...(container === null ? {} : { "vibeserve.dev/container": container }),
    ...(cpus === null ? {} : { "vibeserve.dev/limit.cpus": String(Math.round(cpus * 100) / 100) }),
    ...(memBytes === null ? {} : { "vibeserve.dev/limit.mem.mib": String(Math.floor(memBytes / 2 ** 20)) }),
  };
}

/** By the files that each runtime leaves in what it starts; null: none of these. */
function containerOf(root: string): string | null {
  if (existsSync(`${root}/var/run/secrets/kubernetes.io`)) return "kubernetes";
  if (existsSync(`${root}/run/.containerenv`)) return "podman";
  return existsSync(`${root}/.dockerenv`) && !onOwnDisk(root) ? "docker" : null;
}

/** A virtual machine whose disk was made from a container's image keeps the image's .dockerenv; its / is a whole disk, a container's an overlay or a folder of one. */
function onOwnDisk(root: string): boolean {
  return /^\d+ \d+ \S+ \/ \/ .* - \S+ \/dev\/\S+ /m.test(readText(`${root}/proc/self/mountinfo`) ?? "");
}
