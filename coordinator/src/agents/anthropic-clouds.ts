import type Anthropic from "@anthropic-ai/sdk";
import type { Cloud } from "../config.ts";
import { EffectBlocked } from "../campaign/effect-handlers.ts";
import { CLIENT, overMessages } from "./anthropic.ts";
import type { Provider } from "./provider.ts";

/** Not among our dependencies: with what they need they add 68 and 19 MB. */
const CLIENTS = {
  bedrock: { package: "@anthropic-ai/bedrock-sdk", name: "AnthropicBedrockMantle" },
  vertex: { package: "@anthropic-ai/vertex-sdk", name: "AnthropicVertex" },
} as const;

/**
 * Anthropic's models on another cloud, by their names there. Who one is there, each cloud's own client finds out in its own way (AWS's chain of credentials,
 * Google's default ones). Throws EffectBlocked where its client is not installed, or can't be made.
 */
export async function anthropicOn(cloud: Cloud): Promise<Provider> {
  const client = CLIENTS[cloud.kind];
  const options = cloud.kind === "bedrock" ? { awsRegion: cloud.region } : { region: cloud.region, projectId: cloud.project };
  let made: { messages: Anthropic.Messages };
  try {
    const found = (await import(client.package)) as Record<string, new (options: object) => { messages: Anthropic.Messages }>;
    const Client = found[client.name];
    if (!Client) throw new Error(`it has no ${client.name}`);
    made = new Client({ ...CLIENT, ...options });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new EffectBlocked(`${client.package} can't be used; install it with: npm install --no-save ${client.package}@1 (${why})`);
  }
  return overMessages(`anthropic-${cloud.kind}`, made.messages);
}
