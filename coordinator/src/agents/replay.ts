import type { ArtifactRef } from "@vibeserve/shared";
import { surroundings, type Campaign } from "../campaign/campaign.machine.ts";
import type { Experiment } from "../campaign/experiment.machine.ts";
import { callKey, FINAL, isJobTool, jobCall, saidTurns, type CallAt, type SessionRole } from "../campaign/session.ts";
import { bytesOf, callsOf, user, type Answer, type Block, type Message } from "./conversation.ts";
import { jobAnswer } from "./job-answer.ts";
import { inline } from "./prompt.ts";
import { runLocal, type Scope } from "./tools.ts";
import { ToolProblem, type Workspace } from "./workspace.ts";

/** A conversation after so many whole turns. Never changed: a longer one is another. */
export interface Talk {
  turns: number;
  messages: readonly Message[];
  /** Bytes of all messages as JSON. */
  bytes: number;
  /** The tree as these turns left it. */
  workspace: Workspace;
}

/** `input`: arguments of the call at which it was stopped, if it was; then `workspace` is the tree at that call, and the last turn is not among the messages. */
export interface Played extends Talk {
  input: unknown;
}

export interface PlayOf {
  campaign: Campaign;
  experiment: Experiment;
  role: SessionRole;
  draft: number;
  /** What is played on. Must be the same whenever the conversation is played from its beginning. */
  from: Talk;
  skill: Scope["skill"];
  said: (ref: ArtifactRef) => Promise<readonly Block[]>;
}

/** A conversation of which nothing has been said yet. */
export const begun = (first: string, workspace: Workspace): Talk => {
  const message = user(first);
  return { turns: 0, messages: [message], bytes: bytesOf(message), workspace };
};

const NUDGE = "You called no tool. Go on with the tools, and end with";
const IGNORED = "not looked at: the turn ended before it";

/**
 * A conversation of more than this is cut at a turn's border: of all but the newest turns what tools answered and what they were called with goes, until half of
 * it is left. 120,000 tokens.
 */
const ROOM_BYTES = 360_000;
/** Turns that stay whole; if those alone are too long, fewer. */
const KEPT = [6, 2] as const;
/** Characters; shorter answers stay. */
const DROPPED_FROM = 500;
const DROPPED = "(dropped to make room; call the tool again if you need it)";
const DROPPED_INPUT = "to make room; the tree has what was written";

/**
 * Plays a conversation from its turns: what local tools answered is worked out on the tree, what jobs answered stands in the ledger. Same log, same messages,
 * whether it is played from its beginning or from where it was left, so a restart goes on as if nothing had been. until: stops at this call.
 */
export async function play(of: PlayOf, until: Pick<CallAt, "n" | "index"> | null): Promise<Played> {
  const { campaign, experiment, role, draft, from } = of;
  const workspace = from.workspace.copy();
  const scope = { workspace, skill: of.skill };
  const messages = [...from.messages];
  let [turns, bytes] = [from.turns, from.bytes];
  for (const turn of saidTurns(campaign.turns, experiment.id, role, draft).slice(from.turns)) {
    if (turn.outcome?.status !== "said") continue;
    const content = await of.said(turn.outcome.content);
    const calls = callsOf(content);
    const answers: Answer[] = [];
    let ended = false;
    for (const [j, call] of calls.entries()) {
      const index = j + 1;
      if (until?.n === turns + 1 && until.index === index) return { turns, messages, bytes, workspace, input: call.input };
      const looked = !ended && index <= turn.outcome.calls.length;
      const answer = looked
        ? answerTo(of, callKey(role, draft, turns + 1, index), call.tool, call.input, scope)
        : { text: IGNORED, isError: true };
      answers.push({ id: call.id, ...answer });
      ended ||= call.tool === FINAL[role];
    }
    const said: Message = { role: "assistant", content: content.length > 0 ? content : [{ type: "text", text: "(nothing)" }] };
    const answered: Message = { role: "user", answers, text: calls.length === 0 ? `${NUDGE} \`${FINAL[role]}\`.` : "" };
    messages.push(said, answered);
    bytes += bytesOf(said) + bytesOf(answered);
    turns++;
    if (bytes > ROOM_BYTES) bytes -= makeRoom(messages, bytes);
  }
  return { turns, messages, bytes, workspace, input: undefined };
}

function answerTo(of: PlayOf, key: string, tool: string, input: unknown, scope: Scope): Omit<Answer, "id"> {
  const { campaign, experiment: x, role } = of;
  const problem = (text: string) => ({ text, isError: true });
  const prepared = x.calls[key];
  if (tool === FINAL[role]) {
    const back = x.returned.find((r) => r.call === key);
    return problem(back ? `It came back: ${inline(back.reason)}` : (prepared?.problem ?? "not answered"));
  }
  if (role === "implementer" && isJobTool(tool)) {
    if (!prepared) throw new Error(`${x.id} ${key}: ${tool} was never prepared`);
    const call = jobCall(surroundings(campaign, x), x.id, key, tool, prepared);
    if (call.kind === "job") throw new Error(`${x.id} ${key}: ${tool} is not answered yet`);
    return call.kind === "problem" ? problem(call.problem) : jobAnswer(call.outcome);
  }
  try {
    return { text: runLocal(role, tool, input, scope), isError: false };
  } catch (error) {
    if (error instanceof ToolProblem) return problem(error.message);
    throw error;
  }
}

/** Drops much at once and seldom, so that a provider's cache of the beginning holds for many turns. Returns the bytes that went. */
function makeRoom(messages: Message[], bytes: number): number {
  let gone = 0;
  for (const kept of KEPT) {
    for (const [i, m] of messages.entries()) {
      if (i === 0 || i >= messages.length - 2 * kept) continue;
      const short = shortened(m);
      gone += bytesOf(m) - bytesOf(short);
      messages[i] = short;
    }
    if (bytes - gone <= ROOM_BYTES / 2) break;
  }
  return gone;
}

function shortened(m: Message): Message {
  if (m.role === "user") return { ...m, answers: m.answers.map((a) => (a.text.length > DROPPED_FROM ? { ...a, text: DROPPED } : a)) };
  const content = m.content.map((b) =>
    b.type === "call" && JSON.stringify(b.input ?? null).length > DROPPED_FROM ? { ...b, input: { dropped: DROPPED_INPUT } } : b,
  );
  return { ...m, content };
}
