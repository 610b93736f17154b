import { z } from "zod";
import { CandidateFault } from "./candidate-fault.ts";

/** What a candidate must answer; members that are not named are let pass. Numbers must be finite, ids whole. */
const ids = z.array(z.int().min(0)).max(65_536);
const finish = z.enum(["stop", "length"]);
export const Usage = z.object({ prompt_tokens: z.int(), completion_tokens: z.int(), total_tokens: z.int() });
export type Usage = z.infer<typeof Usage>;

export const ChatChunk = z.object({
  choices: z
    .array(
      z.object({
        delta: z.object({ content: z.string().nullish() }),
        token_ids: ids.optional(),
        finish_reason: finish.nullish(),
      }),
    )
    .max(1),
  usage: Usage.nullish(),
});
const Completion = z.object({ text: z.string(), token_ids: ids, finish_reason: finish });
const Logprobs = z.object({
  tokens: z.array(z.string()),
  token_ids: ids,
  token_logprobs: z.array(z.number()),
  top_logprobs: z.array(z.record(z.string().regex(/^\d+$/), z.number())),
});
export const PlainAnswer = z.object({ model: z.string(), choices: z.array(Completion).length(1), usage: Usage });
export const CompletionAnswer = z.object({ choices: z.array(Completion.extend({ logprobs: Logprobs })).length(1), usage: Usage });
export const ModelList = z.object({
  object: z.literal("list"),
  data: z.array(z.object({ id: z.string().min(1), object: z.literal("model") })).min(1),
});
export const ScoreAnswer = z.object({ logprobs: z.array(z.array(z.array(z.number()))) });
export const ErrorAnswer = z.object({ error: z.object({ message: z.string(), type: z.string(), param: z.string().nullish() }) });

/** The value, or a CandidateFault that says where it is wrong. */
export function expectShape<S extends z.ZodType>(schema: S, value: unknown, what: string): z.infer<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new CandidateFault(`${what}: ${issue ? `${issue.path.join(".") || "the answer"}: ${issue.message}` : "wrong shape"}`);
}
