import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CHART, containerOf, helm, idOf, render, renderArgs, runHelm, workloadsOf, type Workload } from "../kit/chart.ts";

const PLACE = "/var/cache/vibeserve/weights";
const FETCH = ["repository=tiny/llama", `revision=${"a".repeat(40)}`, "name=tiny"].map((set) => `weights.fetch.models[0].${set}`);

/** Of every workload that has weights: where they come from, and how they are mounted. */
function having(set: string[]): Record<string, { volume: object; mount: object }> {
  const found = workloadsOf(render({ set })).flatMap(({ object, pod }) => {
    const mounts = pod.containers.flatMap(({ volumeMounts }) => volumeMounts).filter(({ mountPath }) => mountPath === PLACE);
    const volumes = pod.volumes.filter(({ name }) => name === "weights");
    expect([volumes.length, mounts.length], idOf(object)).toEqual([mounts.length, mounts.length]);
    return volumes.map((volume, i) => [idOf(object), { volume, mount: mounts[i] ?? {} }] as const);
  });
  return Object.fromEntries(found);
}
const claim = (name: string) => ({ name: "weights", persistentVolumeClaim: { claimName: name, readOnly: true } });
const readOnly = { name: "weights", mountPath: PLACE, readOnly: true };

describe.skipIf(helm === null)("weights (skipped without helm)", () => {
  it("are nowhere by default, which the notes say", () => {
    expect(having([])).toEqual({});
    const notes = (set: string[]): string => runHelm(["install", "--dry-run=client", ...renderArgs({ set })]).out;
    expect(notes([])).toContain("Agents of amd, cpu, nvidia have no weights");
    expect(notes(["agents.classes.cpu.weights.hostPath=/w"])).toContain("Agents of amd, nvidia have no weights");
    expect(notes(["weights.existingClaim=w"])).not.toContain("have no weights");
  });

  it("of a claim are read-only in every agent's pod, and in no builder's or coordinator's", () => {
    const all = { volume: claim("models"), mount: { ...readOnly, subPath: "a/b" } };
    expect(having(["weights.existingClaim=models", "weights.subPath=a/b", "builders.enabled=true"])).toEqual({
      "DaemonSet/vs-vibeserve-amd": all,
      "DaemonSet/vs-vibeserve-cpu": all,
      "DaemonSet/vs-vibeserve-nvidia": all,
    });
  });

  it("of a class of its own stand in the place of all others, also where it has none", () => {
    const found = having([
      "weights.existingClaim=models",
      "agents.classes.nvidia.weights.hostPath=/mnt/nvme",
      "agents.classes.amd.weights.existingClaim=",
    ]);
    expect(found).toEqual({
      "DaemonSet/vs-vibeserve-cpu": { volume: claim("models"), mount: readOnly },
      "DaemonSet/vs-vibeserve-nvidia": {
        volume: { name: "weights", hostPath: { path: "/mnt/nvme", type: "Directory" } },
        mount: readOnly,
      },
    });
  });

  it("can be written by the coordinator and by the Job that fetches them, and by nobody else", () => {
    const found = having(["weights.existingClaim=models", "weights.coordinator=true", ...FETCH]);
    const writing = Object.entries(found).filter(([, one]) => !JSON.stringify(one).includes('readOnly":true'));
    expect(writing.map(([id]) => id.replace(/-[0-9a-f]{8}$/, "")).sort()).toEqual([
      "Deployment/vs-vibeserve-coordinator",
      "Job/vs-vibeserve-weights",
    ]);
  });

  it("are fetched with packages whose every byte is pinned, and what the Job starts is in its ConfigMap", () => {
    const lines = readFileSync(join(CHART, "files/fetch-weights.txt"), "utf8")
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"));
    for (const line of lines) expect(line).toMatch(/^[-\w]+==[\d.]+( --hash=sha256:[0-9a-f]{64})+$/);
    const objects = render({ set: ["weights.existingClaim=models", ...FETCH] });
    const files = Object.keys(objects.find((object) => idOf(object) === "ConfigMap/vs-vibeserve-weights")?.["data"] ?? {});
    const script = containerOf(objects, "fetch").args.join();
    expect([...new Set(script.match(/\b[-\w]+\.(py|txt|json)\b/g))].sort()).toEqual(files.sort());
  });

  it("are fetched by a Job with the token of the hub, which no other pod has; any change makes another Job", () => {
    const set = ["weights.existingClaim=models", "huggingFace.existingSecret=hf", ...FETCH];
    const idsOf = (changed: string[], fits: (one: Workload) => boolean): string[] =>
      workloadsOf(render({ set: [...set, ...changed] }))
        .filter(fits)
        .map(({ object }) => idOf(object));
    const [job, ...more] = idsOf([], ({ pod }) => pod.volumes.some((volume) => volume.secret?.secretName === "hf"));
    expect([job, more]).toEqual([expect.stringMatching(/^Job\/vs-vibeserve-weights-[0-9a-f]{8}$/), []]);
    const jobOf = (changed: string[]): string | undefined => idsOf(changed, ({ object }) => object.metadata.name.includes("-weights-"))[0];
    expect(jobOf(["coordinator.logLevel=debug"])).toBe(job);
    for (const change of [
      "weights.fetch.models[0].name=other",
      "images.pullPolicy=Always",
      "commonLabels.team=a",
      "weights.fetch.env.HF_ENDPOINT=http://hub",
    ])
      expect(jobOf([change]), change).not.toBe(job);
  });
});
