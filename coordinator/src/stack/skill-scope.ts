import { Device, type SkillScope, type Target } from "@vibeserve/shared";
import type { SkillFile } from "./skill-file.ts";

/** What is known of a target before a device is bound: its device class and, where given, architecture words; its model's name. */
export interface ScopeOf {
  device: Device["kind"] | null;
  /** ISA bits or architecture words; null: not known, so nothing is ruled out by them. */
  arch: readonly string[] | null;
  model: string;
}

const KIND = "vibeserve.dev/device.kind";

export function scopeOf(target: Target, device: Device | null): ScopeOf {
  return {
    device: device?.kind ?? Device.shape.kind.options.find((k) => k === target.device[KIND]) ?? null,
    arch: device?.isaBits ?? null,
    model: target.model.name.toLowerCase(),
  };
}

/** Does this scope admit that target? A list that is empty, and a fact that is not known, rule nothing out. */
export function admits(scope: SkillScope, of: ScopeOf): boolean {
  if (of.device !== null && !scope.devices.includes(of.device)) return false;
  if (of.arch !== null && scope.arch.length > 0 && !scope.arch.some((a) => of.arch?.includes(a))) return false;
  return scope.models.length === 0 || scope.models.some((family) => of.model.includes(family));
}

/** One line a skill: what an agent sees before it asks for a body. */
export const indexLine = ({ skill }: SkillFile): string =>
  `${skill.id} [${skill.seams.join(", ")}] ${skill.title}: ${skill.summary} (${skill.expectedGain.ratio}× ${skill.expectedGain.metric})`;
