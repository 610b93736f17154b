import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import type { CheckContext } from "./context.ts";
import { attempt, drawPrompt, textOf } from "./context.ts";
import { COUNTS_RULE } from "./greedy.ts";
import { problemsOf } from "./answer-rules.ts";
import { greedyJudge } from "./margin-rule.ts";
import { sampling, seeds } from "./sampling.ts";
import { ErrorAnswer, expectShape } from "./wire.ts";

const MODELS_RULE = "/v1/models lists the model under the name that answers carry";
const TEXT_RULE = "a prompt that is text is read as its ids";
const REFUSAL_RULE = "a request for what is not served gets a 400 that names the field";
const STOP_RULE = "stop strings end an answer and are not shown";
const DISCONNECT_RULE = "a client that hangs up frees its place";

/** Tokens that a disconnected client had asked for. */
const ABANDONED_TOKENS = 1500;
/** After a disconnect a short chat may take three times what it took before, and a second for noise; an engine that goes on needs far longer. */
const DISCONNECT_FACTOR = 3;
const DISCONNECT_SLACK_S = 1;
/** Let the engine finish its step and any client-visible clean-up. */
const SETTLE_MS = 300;
const CPU_WINDOW_MS = 500;
/** An engine at rest uses next to nothing; one that generates uses at least a core. */
const IDLE_CORES = 0.5;
/** Of the prompt that is sent as text, at most. */
const TEXT_TOKENS = 6;

/** What else the contract asks. `cpuSeconds`: CPU time of the candidate's process tree, where the caller can tell. */
export async function checkContract(ctx: CheckContext, cpuSeconds?: () => Promise<number>): Promise<void> {
  await attempt(ctx, "refusals", () => refusals(ctx));
  await attempt(ctx, "stop strings", () => stopStrings(ctx));
  await attempt(ctx, "models and a prompt that is text", () => textPrompt(ctx));
  await attempt(ctx, "sampling", () => sampling(ctx));
  await attempt(ctx, "seeds", () => seeds(ctx));
  await attempt(ctx, "disconnect", () => disconnect(ctx, cpuSeconds));
}

async function refusals(ctx: CheckContext): Promise<void> {
  const { tokenizer, rng } = ctx;
  const messages = [{ role: "user", content: "Hello" }];
  const invented = `x_${randomBytes(4).toString("hex")}`;
  const cases: [path: string, field: string, body: Record<string, unknown>][] = [
    ["/v1/chat/completions", "logit_bias", { messages, max_tokens: 2, logit_bias: { "50": 5 } }],
    ["/v1/chat/completions", invented, { messages, max_tokens: 2, [invented]: rng.int(100) }],
    ["/v1/completions", invented, { prompt: "Hello", max_tokens: 2, [invented]: rng.int(100) }],
    ["/v1/chat/completions", "max_tokens", { messages, max_tokens: tokenizer.contextLength + 1 }],
  ];
  for (const [path, field, body] of cases) await expectRefusal(ctx, path, field, body);
}

/** Sends a request with a field that is not served. */
export async function expectRefusal({ candidate, findings }: CheckContext, path: string, field: string, body: unknown): Promise<void> {
  const { status, json } = await candidate.refused(path, body);
  if (status !== 400) {
    findings.rule(REFUSAL_RULE, [`${path} with "${field}" answered ${status}`], "refusals", "400");
    return;
  }
  const { error } = expectShape(ErrorAnswer, json, `${path} with "${field}"`);
  const named = error.message.includes(field) || error.param === field;
  findings.rule(
    REFUSAL_RULE,
    named && error.type === "invalid_request_error" ? [] : [`the error is ${JSON.stringify(error)}`],
    "refusals",
    `names "${field}"`,
  );
}

/** One short greedy completion of text, asked by the name that /v1/models gives: the usage tells how many ids it was read as, the reference which. */
async function textPrompt(ctx: CheckContext): Promise<void> {
  const { candidate, findings, tokenizer, reference, limits, signal } = ctx;
  const models = await candidate.models();
  const asked = drawPrompt(ctx).messages.at(-1)!.content;
  const prompt = tokenizer.decode(tokenizer.encode(asked).slice(0, TEXT_TOKENS)).replaceAll("\uFFFD", "");
  const request = { prompt, model: models[0]!, maxTokens: 2, ignoreEos: true };
  const answer = await candidate.plain(request);
  const unlisted = models.includes(answer.model)
    ? []
    : [`it lists ${JSON.stringify(models)}, an answer carries ${JSON.stringify(answer.model)}`];
  findings.rule(MODELS_RULE, unlisted, "GET /v1/models");
  const ids = tokenizer.encode(prompt);
  const problems = problemsOf(answer, request, ids.length, tokenizer);
  findings.rule(COUNTS_RULE, problems, "completion of text", JSON.stringify(prompt));
  if (problems.length > 0) return;
  const verdict = await greedyJudge(reference, limits.greedyMargin, textOf(tokenizer))(ids, answer.ids, signal);
  findings.rule(TEXT_RULE, verdict.ok ? [] : [verdict.detail], "completion of text", JSON.stringify(prompt));
}

/** Answers that are asked for one that a stop string can be cut from; only a model that says nothing readable needs more than one. */
const STOP_TRIES = 4;

/** A piece of `text` that can serve as a stop string, from its middle onwards, then before it; null: it has none. */
function stopPiece(text: string): string | null {
  const middle = Math.floor(text.length / 2);
  const starts = Array.from({ length: Math.max(0, text.length - 3) }, (_, i) => i);
  const ordered = [...starts.filter((i) => i >= middle), ...starts.filter((i) => i < middle).reverse()];
  for (const at of ordered) {
    const piece = text.slice(at, at + 4);
    if (piece.trim() !== "" && !piece.includes("\uFFFD") && piece.isWellFormed()) return piece;
  }
  return null;
}

async function stopStrings(ctx: CheckContext): Promise<void> {
  const { candidate, findings } = ctx;
  for (let i = 0; i < STOP_TRIES; i++) {
    const { messages, ids } = drawPrompt(ctx);
    const free = { messages, maxTokens: 16, ignoreEos: true };
    const { text } = await candidate.chat(free);
    // A piece of what it says by itself, so that greedy decoding meets it again (or, after a near tie, need not).
    const stop = stopPiece(text);
    if (stop !== null) return stopString(ctx, free, ids.length, text, stop);
  }
  // What was not tested is not passed.
  findings.rule(STOP_RULE, [`no stop string can be cut from ${STOP_TRIES} answers`], "chat with a stop string", "readable text");
}

/** Asks again with a stop string that the free answer `text` held. */
async function stopString(
  { candidate, findings, tokenizer }: CheckContext,
  free: Parameters<CheckContext["candidate"]["chat"]>[0],
  promptTokens: number,
  text: string,
  stop: string,
): Promise<void> {
  const request = { ...free, stop: [stop] };
  const answer = await candidate.chat(request);
  const wrong = problemsOf(answer, request, promptTokens, tokenizer);
  findings.rule(COUNTS_RULE, wrong, "chat with a stop string");
  if (wrong.length > 0) return;
  const problems: string[] = [];
  if (answer.text.includes(stop)) problems.push(`the text shows the stop string ${JSON.stringify(stop)}`);
  if (answer.finish !== "stop" && tokenizer.decode(answer.ids).includes(stop))
    problems.push(`finish_reason is "${answer.finish ?? "null"}" though the ids spell the stop string`);
  if (answer.finish === "stop" && !tokenizer.decode(answer.ids).includes(stop))
    problems.push('finish_reason is "stop" though the ids do not spell the stop string');
  findings.rule(STOP_RULE, problems, "chat with a stop string", `stop ${JSON.stringify(stop)} in ${JSON.stringify(text)}`);
}

async function disconnect(ctx: CheckContext, cpuSeconds?: () => Promise<number>): Promise<void> {
  const { candidate, findings } = ctx;
  const { messages } = drawPrompt(ctx);
  const short = { messages, maxTokens: 4, ignoreEos: true };
  const before = (await candidate.chat(short)).seconds;
  await candidate.chatAndHangUp(messages, ABANDONED_TOKENS);
  const after = (await candidate.chat(short)).seconds;
  const limit = DISCONNECT_FACTOR * before + DISCONNECT_SLACK_S;
  const problems = after > limit ? [`a short chat took ${after.toFixed(2)} s after a disconnect, ${before.toFixed(2)} s before`] : [];
  if (cpuSeconds) {
    await pause(SETTLE_MS);
    const start = performance.now();
    const used = await cpuSeconds();
    await pause(CPU_WINDOW_MS);
    const cores = ((await cpuSeconds()) - used) / ((performance.now() - start) / 1000);
    if (cores > IDLE_CORES) problems.push(`${cores.toFixed(2)} cores are busy after the last client left`);
  }
  findings.rule(DISCONNECT_RULE, problems, "disconnect", `at most ${limit.toFixed(2)} s`);
}
