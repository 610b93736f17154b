import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { SEAMS, sha256, type Target } from "@vibeserve/shared";

export interface TinySkill {
  id: string;
  seam: (typeof SEAMS)[number];
  stated: number;
  /** What a simulated device finds. */
  truth: number;
}

export const SKILLS: TinySkill[] = [
  { id: "linear-fast", seam: "linear", stated: 4, truth: 5 },
  { id: "threads", seam: "threading", stated: 2, truth: 1.9 },
  { id: "head-slow", seam: "head", stated: 1.5, truth: 0.8 },
];

/** An installation with one stack of a few lines, "stacks/tiny", that no compiler has to accept, and skills with a known truth. */
export function writeTinyInstallation(root: string, skills: readonly TinySkill[] = SKILLS): void {
  const write = (path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const project = join(import.meta.dirname, "../..");
  for (const path of ["prompts/roles", "prompts/agents", "docs/candidate-contract.md"])
    cpSync(join(project, path), join(root, path), { recursive: true });
  write("stacks/tiny/stack.json", "{}\n");
  write("stacks/tiny/build.sh", "#!/bin/sh\n");
  for (const seam of SEAMS) write(`stacks/tiny/seed/${seam}.cpp`, `// the seed's ${seam}\n`);
  for (const { id, seam, stated, truth } of skills) {
    write(`stacks/tiny/bindings/${seam}/${id}.cpp`, `// ${id}\n// speed: ${truth}\n`);
    const front = {
      id,
      title: id,
      summary: id,
      appliesTo: { stacks: ["tiny"], devices: ["cpu"] },
      seams: [seam],
      binding: `${seam}/${id}.cpp`,
      requires: { isa: [], skills: [], cores: 1 },
      conflicts: [],
      expectedGain: { metric: "output_tokens_per_second", ratio: stated, source: "simulated" },
      activation: "none",
      failureModes: ["none"],
    };
    write(`prompts/skills/${id}/SKILL.md`, `---\n${JSON.stringify(front)}\n---\n# ${id}\n`);
  }
}

export const tinyTarget: Target = {
  v: 1,
  kind: "target",
  name: "tiny",
  model: { name: "m", file: "m.gguf", sha256: sha256("m") },
  device: { "vibeserve.dev/device.kind": "cpu" },
  workload: {
    arrival: { process: "closed", concurrency: 8 },
    prompt: { distribution: "fixed", tokens: 128 },
    output: { distribution: "fixed", tokens: 96 },
    requests: 48,
  },
  slice: {
    arrival: { process: "closed", concurrency: 8 },
    prompt: { distribution: "fixed", tokens: 20 },
    output: { distribution: "fixed", tokens: 8 },
    requests: 8,
  },
  objective: { name: "output_tokens_per_second", unit: "tok/s", direction: "maximize" },
  accuracy: { class: "exact" },
  seed: "stacks/tiny",
  agent: "playbook",
  budget: { wallS: 100_000, experiments: 20, usd: 0 },
  baselines: [],
};
