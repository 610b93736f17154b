export { buildReference, type BuildReferenceOptions } from "./build-reference.ts";
export { DevicePlace } from "./device-place.ts";
export { hfReference } from "./hf-reference.ts";
export { Reference, REFERENCE_TOP, type ReferenceHello, type ReferenceOptions } from "./reference.ts";
export { ReferenceError, type Sequence, type SequenceScores } from "./reference-protocol.ts";
export { mutateGguf, type MutateOptions } from "./mutate-gguf.ts";
export { mutateFolder } from "./mutate-folder.ts";
export {
  generatePrompt,
  promptDrawer,
  MIN_PROMPT_TOKENS,
  PROMPT_KINDS,
  type GeneratedPrompt,
  type PromptKind,
  type PromptOptions,
} from "./prompts/index.ts";
export { Pool, POOL_POSITIONS, type PoolOptions, type Slice, type SliceSpec } from "./pool/pool.ts";
export type { ScoredSequence } from "./pool/record.ts";
export { runCheck, type CheckOptions } from "./check/run-check.ts";
export { defaultSizes, type CheckLevel, type CheckSizes } from "./check/sizes.ts";
export { ACCURACY_LIMITS, DEPTH_BUCKETS, type AccuracyLimits } from "./check/gates.ts";
export { greedyJudge, judgeServed, type MarginVerdict, type ServedSequence } from "./check/margin-rule.ts";
