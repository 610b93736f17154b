import { readFileSync } from "node:fs";
import type { Device, Job, JobSpec } from "@vibeserve/shared";
import { ContentCache } from "../../gpu-agent/src/artifact/content-cache.ts";
import type { Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import type { ArtifactStore, JobContext, JobOf } from "../../gpu-agent/src/worker/job-context.ts";

/** Artifacts in a folder, without an object store behind it. */
export function localArtifacts(dir: string): ArtifactStore {
  const contents = new ContentCache(dir);
  return {
    put: (bytes) => contents.put(bytes),
    putFile: (path) => contents.put(readFileSync(path)),
    get: async (ref) => readFileSync((await contents.find(ref)) ?? "/missing"),
    getFile: async (ref) => (await contents.find(ref)) ?? "/missing",
  };
}

const DEVICE: Device = {
  ...{ id: "d", kind: "cpu", name: "", isa: "scalar", isaBits: [], cores: 1, cpus: "0", memBytes: 0, labels: {}, simulated: false },
};

/** What a handler gets beside its job, on this machine's first processor. */
export function jobContext(sandbox: Sandbox, artifacts: ArtifactStore, more: Partial<JobContext> = {}): JobContext {
  const at = { grantedAt: 1, ttlMs: 1, deadline: 1 };
  return {
    lease: { v: 1, kind: "lease", deviceId: "d", agentId: "a", jobId: "j", attempt: 1, token: 1, ...at },
    device: DEVICE,
    devices: [more.device ?? DEVICE],
    agentId: "a",
    tools: [],
    signal: new AbortController().signal,
    progress: () => undefined,
    artifacts,
    sandbox,
    log: () => undefined,
    sign: () => "",
    ...more,
  };
}

export function jobOf<S extends JobSpec>(spec: S): JobOf<S> {
  const ids: Omit<Job, "spec" | "v" | "kind"> = {
    id: "j",
    campaign: "c",
    experiment: "e",
    attempt: 1,
    pool: "p",
    issuedAt: 1,
    deadlineMs: 1,
  };
  return { v: 1, kind: "job", ...ids, spec };
}
