export { message } from "./message.ts";
export { METRICS, Metric, Direction, improvement, type MetricName } from "./metric.ts";
export { sha256, canonicalJson, digestOf } from "./digest.ts";
export { AgentId, Id, Digest, TreeHash, ArtifactRef, ChampionRef, nameOf, Instant } from "./ids.ts";
export {
  AgentKind,
  Target,
  Workload,
  Length,
  Arrival,
  Budget,
  Engine,
  Fit,
  RequalifyCause,
  Trial,
  targetProblems,
  notRunnableYet,
  countOf,
  clientsOf,
  UNKNOWN_DIGEST,
  type CampaignOptions,
} from "./target.ts";
export { ModelFormat, WeightType, ModelShape, folderDigest, parameters, fitOf, type FitReport } from "./model-shape.ts";
export {
  Device,
  onProcessors,
  isSlice,
  RESERVED_LABEL,
  Tool,
  SandboxKind,
  AgentInfo,
  devicePool,
  physicalId,
  PROTOCOL,
  MAX_DEVICES,
  Lease,
} from "./device.ts";
export { Assignment, Beat, LeaseRevoked, leaseOf } from "./lease.ts";
export { SEAMS, Seam, Area, Skill, SkillScope, Hypothesis, Resolution } from "./skill.ts";
export { Certificate, DeviceConditions, ArmRole, Measurement, Comparison, Ratio, ratioOf, Gate, CheckReport } from "./measurement.ts";
export { BuildTarget, BuildOutput, BuilderInfo, type Arch, buildTargetOf, canBuildFor, compareVersions } from "./build-target.ts";
export { StackManifest, Feature, OUT_FILE } from "./stack-manifest.ts";
export {
  ModelRef,
  Provenance,
  BuiltStack,
  BuildSpec,
  CheckSpec,
  BenchSpec,
  BaselineSpec,
  ProfileSpec,
  ExecSpec,
  Arm,
  JobSpec,
  Job,
  Failure,
  Outcome,
  JobResult,
  devicesOf,
  blamedDevice,
  Progress,
  type JobKind,
} from "./job.ts";
export { Profile, Roofline } from "./profile.ts";
export { STREAMS, BUCKETS, subjects, senderOf, inbox, builderDevice, isBuilder } from "./subjects.ts";
export { CHUNK_BYTES, chunkSubject, nameSubject, objectName } from "./object-name.ts";
export { isRecord, parseJson } from "./parse-json.ts";
export { readChunks } from "./read-chunks.ts";
export { Where, covers, keyOfWhere, Hold, HoldsRequest, Holds, ExplainRequest, Explained } from "./holds.ts";
export { TurnUsage, TurnFailureCode, TurnOutcome, TurnRole, ToolCall } from "./turn.ts";
export { BacklogIssue, CampaignFact, CampaignEvent, Bindings, Git, Review, Declaration, Verdict } from "./event.ts";
export { ChannelFile, Promotion, Release, StackExport } from "./release.ts";
export { ApiError, SubmitRequest, CampaignRequest, CampaignSummary, CampaignState, CampaignList, ClientContext } from "./api.ts";
export {
  EnrollRequest,
  Enrolled,
  WatchRequest,
  EventPage,
  ExportBundle,
  ArtifactRequest,
  ArtifactChunk,
  EmptyRequest,
  CoordinatorStatus,
  AgentTokenRequest,
  AgentToken,
  AgentsRequest,
  AgentRow,
  AgentsPage,
  AgentDecision,
  AgentDecided,
  PruneRequest,
  PruneReport,
  DeviceGood,
} from "./verbs.ts";
export { UserClaim, JoinRequest, JoinReply, JoinProof, formatJoinLine, parseJoinLine, type JoinLine } from "./join.ts";
export { PlaintextError, isLoopback, brokerUrl, dialOptions, type DialOptions } from "./broker-address.ts";
export { pageAnswer, probeAnswer, eventLoopCheck, ListenAddress, type Check, type Page } from "./probe.ts";
export { encode, decode, issuesOf, CodecError, MAX_MESSAGE_BYTES } from "./codec.ts";
export { nkeyOf, verifyNkey, type NKey } from "./nkey.ts";
export { createRng, type Rng } from "./random.ts";
export {
  quantile,
  median,
  geometricMean,
  ratioInterval,
  sequentialInterval,
  sequentialStop,
  type Interval,
  type SequentialPlan,
  type Stop,
} from "./statistics.ts";
