/** Every subject, stream, bucket and durable name of the system, in one place. Ids are checked by the schemas to be single tokens. */
export const STREAMS = { events: "VS_EVENTS", results: "VS_RESULTS" } as const;
export const BUCKETS = { agents: "vs-agents", leases: "vs-leases", artifacts: "vs-artifacts" } as const;

export const subjects = {
  event: (campaign: string) => `vs.event.${campaign}`,
  /** Where an assignment is stored (bucket vs-leases), and where the broker repeats it once it is. */
  assignment: (agentId: string, deviceId: string) => `$KV.${BUCKETS.leases}.${agentId}.${deviceId}`,
  assigned: (agentId: string, deviceId: string) => `vs.assign.${agentId}.${deviceId}`,
  result: (agentId: string, campaign: string) => `vs.result.${agentId}.${campaign}`,
  progress: (agentId: string, jobId: string) => `vs.progress.${agentId}.${jobId}`,
  /** Campaign events as they are appended, for live views; lossy, the stream is the truth. */
  live: (campaign: string) => `vs.live.${campaign}`,
  /** An agent lives (Beat). */
  beat: (agentId: string) => `vs.beat.${agentId}`,
  /** Asks all agents for a beat at once; no payload. */
  roll: "vs.roll",
  /** Request/reply, coordinator answers: the one thing that a joiner may ask (JoinRequest → JoinReply). */
  join: "vs.join",
  /** An order to one agent: revoke, drain. It has no answer. */
  agent: (agentId: string, order: string) => `vs.agent.${agentId}.${order}`,
  /** Request/reply in the form of a publish to a stream, coordinator answers: these chunks of this agent's are the artifact that it says. */
  artifact: (agentId: string, name: string) => `vs.artifact.${agentId}.${name}`,
  api: (verb: string) => `vs.api.${verb}`,
} as const;

/** Whose result, progress or artifact it is: the broker lets an agent publish under its own id alone. */
export const senderOf = (subject: string): string => subject.split(".")[2] ?? "";

/** Inbox prefix of each principal, so that no one can read another's replies. */
export const inbox = (principal: string) => `_INBOX_${principal}`;
/** Device id under which an agent gets build jobs: a builder is exclusive like a device, but measures nothing. */
export const builderDevice = (agentId: string) => `${agentId}-builder`;
export const isBuilder = (deviceId: string): boolean => deviceId.endsWith(builderDevice(""));
