import type { Feature } from "@vibeserve/shared";
import { attempt, type CheckContext } from "./context.ts";
import { expectRefusal } from "./contract.ts";

const DECLARED_RULE = "stack.json declares what chat and the judge need";

/** What a candidate has to serve, and for whom. */
const NEEDED: Readonly<Partial<Record<Feature, "chat" | "the judge">>> = {
  chat: "chat",
  stream: "chat",
  max_tokens: "chat",
  stop: "chat",
  temperature: "chat",
  top_p: "chat",
  seed: "chat",
  ignore_eos: "chat",
  cancel: "chat",
  usage: "the judge",
  completions: "the judge",
  logprobs: "the judge",
  score: "the judge",
};

/** The fields that features add to a request, each with a value that asks for next to nothing. */
const FIELDS: readonly (readonly [Feature, field: string, value: unknown])[] = [
  ["stream", "stream", true],
  ["max_tokens", "max_tokens", 1],
  ["stop", "stop", ["stop"]],
  ["temperature", "temperature", 0],
  ["top_p", "top_p", 1],
  ["seed", "seed", 1],
  ["ignore_eos", "ignore_eos", true],
  ["usage", "stream_options", { include_usage: true }],
  ["logprobs", "logprobs", 1],
];

/**
 * Compares what stack.json declares with what is needed. False: something is missing, so there is nothing to judge further; then each field of a feature
 * that is not declared is sent once, and must be refused like any other that is not served. Costs nothing where all is declared.
 */
export async function checkFeatures(ctx: CheckContext, declared: readonly Feature[]): Promise<boolean> {
  const has = (feature: Feature): boolean => declared.includes(feature);
  const missing = Object.entries(NEEDED).filter(([feature]) => !has(feature as Feature));
  const problems = missing.map(([feature, by]) => `stack.json does not declare ${feature}, which ${by} needs`);
  ctx.findings.rule(DECLARED_RULE, problems, "stack.json", `features: ${Object.keys(NEEDED).join(", ")}`);
  if (problems.length === 0) return true;
  for (const [feature, field, value] of FIELDS) {
    // Log-probabilities belong to completions alone, and without those to nothing.
    const chat = has("chat") && feature !== "logprobs";
    if (has(feature) || (!chat && !has("completions"))) continue;
    const prompt = chat ? { messages: [{ role: "user", content: "Hello" }] } : { prompt: "Hello" };
    const body = { ...prompt, ...(has("max_tokens") && { max_tokens: 1 }), [field]: value };
    await attempt(ctx, `"${field}", which is not declared`, () =>
      expectRefusal(ctx, chat ? "/v1/chat/completions" : "/v1/completions", field, body),
    );
  }
  return false;
}
