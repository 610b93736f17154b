import type { GeneratedPrompt } from "../prompts/index.ts";
import type { ChatRequest } from "./candidate.ts";
import { problemsOf } from "./answer-rules.ts";
import { attempt, textOf, type CheckContext } from "./context.ts";
import { judgeServed, type ServedSequence } from "./margin-rule.ts";

export const COUNTS_RULE = "counts, usage, finish reason and text agree with the ids";

/** Greedy chats as tasks, and their answers once these ran. */
export class GreedyRun {
  readonly name: string;
  readonly answers: ServedSequence[] = [];
  readonly #ctx: CheckContext;

  constructor(ctx: CheckContext, name: string) {
    this.#ctx = ctx;
    this.name = name;
  }

  /** One streamed chat; what is served is checked for counts at once and judged later. */
  task(prompt: GeneratedPrompt, options: Omit<ChatRequest, "messages">): () => Promise<void> {
    const request: ChatRequest = { messages: prompt.messages, ...options };
    const { candidate, tokenizer, findings } = this.#ctx;
    return () =>
      attempt(this.#ctx, `chat, ${this.name}`, async () => {
        const answer = await candidate.chat(request);
        const problems = problemsOf(answer, request, prompt.ids.length, tokenizer);
        findings.rule(COUNTS_RULE, problems, `chat, ${this.name}`, JSON.stringify(options));
        if (answer.ids.some((id) => id >= tokenizer.vocabSize)) return;
        const ended = answer.finish === "stop" && answer.ids.length < request.maxTokens && !request.stop;
        this.answers.push({ name: `chat, ${this.name}`, prompt: prompt.ids, served: answer.ids, endedBy: ended ? tokenizer.eosId : null });
      });
  }
}

/** The margin rule over all served chats: one gate a run. The reference scores them together, since they share prompts. */
export async function judgeGreedy(ctx: CheckContext, runs: readonly GreedyRun[], prefix = ""): Promise<void> {
  const { reference, limits, tokenizer, findings, signal } = ctx;
  const answers = runs.flatMap((r) => r.answers);
  const verdicts = await judgeServed(reference, answers, limits.greedyMargin, textOf(tokenizer), signal);
  for (const run of runs) {
    const own = verdicts.filter((v) => v.name === `chat, ${run.name}`);
    const [worst] = own.toSorted((a, b) => b.worstGap - a.worstGap);
    const gap = worst?.worstGap ?? Infinity;
    findings.servedTokens += own.reduce((n, v) => n + v.judged, 0);
    const example = worst ?? { where: `chat, ${run.name}`, candidate: "nothing was served", reference: "" };
    findings.gate(
      {
        name: `${prefix}greedy, ${run.name}: largest gap to the reference's choice`,
        value: gap,
        unit: "nat",
        limit: `≤ ${limits.greedyMargin}`,
        ok: gap <= limits.greedyMargin,
      },
      example,
    );
  }
}
