import type { TurnFailureCode } from "@vibeserve/shared";
import type { Answer, Block, Message, ToolSpec } from "../conversation.ts";
import type { Prices } from "../prices.ts";
import { fenced } from "../prompt.ts";
import { turnFailed, type Provider, type ProviderOutcome, type TurnRequest } from "../provider.ts";
import type { AgentSandbox } from "./agent-sandbox.ts";
import { CliSession, type Event } from "./cli-session.ts";
import type { Recipe } from "./recipe.ts";
import type { CommandFailure, CommandOutcome } from "./run-command-agent.ts";

export interface CommandProviderOf {
  recipe: Recipe;
  /** Read anew for each conversation. */
  prices: () => Prices;
  credential: string | null;
  baseUrl: string | null;
  sandbox: () => Promise<AgentSandbox>;
  path: string;
  onError: (error: unknown) => void;
}

/** The most that a CLI may spend between two calls of our tools: it asks its own model several times in between. */
export const CLI_TURN = { usd: 2, tokens: 2_000_000 } as const;
/** One conversation. A CLI that builds, checks and measures five times waits ten minutes for that alone. */
const WALL_MS = 2 * 3_600_000;
const DECIDE = "decide";
/** What a CLI does itself on the files of its worktree. */
const OWN_HANDS = new Set(["list", "search", "read", "write", "edit", "remove"]);
/** A call that nobody answered for so long belongs to a campaign that is paused: the CLI is started anew if it goes on. */
const IDLE_MS = 1_800_000;

const CODES: Readonly<Record<CommandFailure, TurnFailureCode>> = {
  "not-installed": "refused-request",
  "no-sandbox": "refused-request",
  "timed-out": "cut-short",
  aborted: "cut-off",
  "out-of-memory": "refused-request",
  unpaid: "refused-request",
  "bad-key": "bad-key",
  provider: "overloaded",
  crashed: "refused-request",
};

/**
 * A coding CLI as a provider: it starts with a conversation's first turn, and each later turn hands it what its tools answered and waits for its next call. A
 * coordinator that begins anew in the middle starts the CLI anew on the tree as it stands, with what was said so far.
 */
export function commandProvider(of: CommandProviderOf): Provider & AsyncDisposable {
  const sessions = new Map<string, CliSession>();
  const idle = new Map<CliSession, NodeJS.Timeout>();
  const end = async (name: string, session: CliSession): Promise<void> => {
    if (sessions.get(name) === session) sessions.delete(name);
    clearTimeout(idle.get(session));
    idle.delete(session);
    await session.close();
  };
  const begin = async (request: TurnRequest): Promise<CliSession> => {
    const tools =
      request.reply.kind === "tools" ? request.reply.tools.filter((t) => !OWN_HANDS.has(t.name)) : [decide(request.reply.schema)];
    const { recipe, credential, baseUrl, path, onError } = of;
    const { model, tree = null, writes = false } = request;
    const sandbox = await of.sandbox();
    const task = { recipe, model, prompt: promptOf(request), tools, credential, baseUrl, wallMs: WALL_MS, sandbox, path };
    return new CliSession({ task, tree, writes, prices: of.prices(), onError });
  };
  return {
    name: `command:${of.recipe.program}`,
    reserve: CLI_TURN,
    async turn(request, signal) {
      // "<role>:<experiment>.<draft>.<n>.<try>"; a planner's has no draft and no second turn.
      const name = `${request.campaign} ${request.reply.kind === "schema" ? request.turn : request.turn.replace(/\.\d+\.\d+$/, "")}`;
      const answers = lastAnswers(request.messages);
      const before = sessions.get(name);
      // A turn of its that the log does not have: what it did in it is not in the tree either.
      if (before && !before.awaits(answers)) await end(name, before);
      const open = sessions.get(name);
      const session = open ?? (await begin(request));
      sessions.set(name, session);
      clearTimeout(idle.get(session));
      try {
        session.allow(CLI_TURN.usd);
        if (open) session.answer(answers);
        const event = await session.next(signal);
        const outcome = outcomeOf(event, request, of.recipe);
        if (
          event.kind === "ended" ||
          outcome.status !== "said" ||
          outcome.content.some((b) => b.type === "call" && b.tool === request.final)
        )
          await end(name, session);
        else {
          // Until its next turn, or the campaign's end.
          const stop = (): void => void end(name, session).catch(of.onError);
          idle.set(session, setTimeout(stop, IDLE_MS).unref());
          if (signal.aborted) stop();
          else signal.addEventListener("abort", stop, { once: true });
        }
        return outcome;
      } catch (error) {
        await end(name, session);
        throw error;
      }
    },
    [Symbol.asyncDispose]: async () => {
      for (const timer of idle.values()) clearTimeout(timer);
      await Promise.all([...sessions.values()].map((s) => s.close()));
      sessions.clear();
    },
  };
}

const decide = (schema: Readonly<Record<string, unknown>>): ToolSpec => ({
  name: DECIDE,
  description: "Gives your decision; call it once, then end.",
  input: schema,
});

const lastAnswers = (messages: readonly Message[]): readonly Answer[] => {
  const last = messages.at(-1);
  return last?.role === "user" ? last.answers : [];
};

function outcomeOf(event: Event, request: TurnRequest, recipe: Recipe): ProviderOutcome {
  const { usage, usd } = event.spent;
  if (event.kind === "called") {
    const call = event.content.find((b) => b.type === "call" && b.tool === DECIDE);
    return request.reply.kind === "schema"
      ? { status: "answered", reply: JSON.stringify(call?.type === "call" ? call.input : null).slice(0, 65_536), usage, usd }
      : { status: "said", content: event.content, usage, usd };
  }
  const { outcome } = event;
  if (outcome.status === "failed" && outcome.code !== "timed-out")
    return { ...turnFailed(CODES[outcome.code], `${recipe.program}: ${outcome.message}`, usage), usd };
  // An implementer that ended without a word has handed in nothing; what it left is in the log, and the idea is not blamed.
  if (request.writes === true) return { status: "said", content: [...event.content, gaveUp(outcome)], usage, usd };
  return {
    ...turnFailed("cut-short", `${recipe.program} ended without calling ${request.final ?? DECIDE}: ${outcome.finalText}`, usage),
    usd,
  };
}

function gaveUp(outcome: CommandOutcome): Block {
  const summary = outcome.status === "failed" ? outcome.message : `the CLI ended without handing in: ${outcome.finalText}`;
  const input = { declared: "needs-debugging", summary: summary.slice(0, 1_900), evidence: [], mechanism: "", nextStep: "" };
  return { type: "call", id: "cli-end", tool: "submit", input };
}

/** Of what was said so far, where a new run of the CLI goes on with a conversation. */
const SO_FAR = 24_000;

function promptOf({ system, messages, reply, final }: TurnRequest): string {
  const [first, ...rest] = messages;
  const how =
    reply.kind === "schema"
      ? `Answer by calling the tool \`${DECIDE}\` of the MCP server \`vibeserve\` once, then end.`
      : `Your tools are those of the MCP server \`vibeserve\` and your own on the files of this folder, which is the tree. End by calling \`${final ?? "submit"}\`; its answer may send you on.`;
  const soFar = rest.map(textOf).join("\n").slice(-SO_FAR);
  return [
    system,
    how,
    first ? textOf(first) : "",
    ...(soFar === "" ? [] : [`What happened so far, before you were started again:\n${fenced("so far", soFar)}`]),
  ].join("\n\n");
}

function textOf(message: Message): string {
  if (message.role === "user") return [...message.answers.map((a) => `answer: ${a.text}`), message.text].filter((t) => t !== "").join("\n");
  return message.content.map((b) => (b.type === "text" ? b.text : b.type === "call" ? `you called ${b.tool}` : "")).join("\n");
}
