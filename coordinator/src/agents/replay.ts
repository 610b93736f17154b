import type { ArtifactRef } from "@vibeserve/shared";
import { surroundings, type Campaign } from "../campaign/campaign.machine.ts";
import type { Experiment } from "../campaign/experiment.machine.ts";
import { callKey, FINAL, isJobTool, jobCall, saidTurns, type CallAt, type SessionRole } from "../campaign/session.ts";
import { callsOf, user, type Answer, type Block, type Message } from "./conversation.ts";
import { jobAnswer } from "./job-answer.ts";
import { inline } from "./prompt.ts";
import { runLocal, type Scope } from "./tools.ts";
import { ToolProblem } from "./workspace.ts";

/** A conversation as far as it went. `input`: arguments of the call at which it was stopped, if it was. */
export interface Played {
  messages: Message[];
  input: unknown;
}

export interface PlayOf {
  campaign: Campaign;
  experiment: Experiment;
  role: SessionRole;
  draft: number;
  /** What the conversation begins with; must be the same at each turn. */
  first: string;
  /** Changed by the calls as they are played. */
  scope: Scope;
  said: (ref: ArtifactRef) => Promise<readonly Block[]>;
}

const NUDGE = "You called no tool. Go on with the tools, and end with";
const IGNORED = "not looked at: the turn ended before it";

/** A conversation of more than this is cut at a turn's border: older answers of tools go, the newest KEPT messages of ours stay. 120,000 tokens. */
const ROOM_BYTES = 360_000;
const KEPT = 6;
const DROPPED = "(dropped to make room; call the tool again if you need it)";

/**
 * Plays a conversation again from its turns: what local tools answered is worked out anew on the tree, what jobs answered stands in the ledger. Same log, same
 * messages, so a restart goes on as if nothing had been. until: stops at this call, the tree as it stands there.
 */
export async function play(of: PlayOf, until: Pick<CallAt, "n" | "index"> | null): Promise<Played> {
  const { campaign, experiment, role, draft, scope } = of;
  const messages: Message[] = [user(of.first)];
  for (const [i, turn] of saidTurns(campaign.turns, experiment.id, role, draft).entries()) {
    if (turn.outcome?.status !== "said") continue;
    const content = await of.said(turn.outcome.content);
    messages.push({ role: "assistant", content: content.length > 0 ? content : [{ type: "text", text: "(nothing)" }] });
    const calls = callsOf(content);
    const answers: Answer[] = [];
    let ended = false;
    for (const [j, call] of calls.entries()) {
      const index = j + 1;
      if (until?.n === i + 1 && until.index === index) return { messages, input: call.input };
      const looked = !ended && index <= turn.outcome.calls.length;
      const answer = looked
        ? answerTo(of, callKey(role, draft, i + 1, index), call.tool, call.input, scope)
        : { text: IGNORED, isError: true };
      answers.push({ id: call.id, ...answer });
      ended ||= call.tool === FINAL[role];
    }
    messages.push({ role: "user", answers, text: calls.length === 0 ? `${NUDGE} \`${FINAL[role]}\`.` : "" });
    makeRoom(messages);
  }
  return { messages, input: undefined };
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
    const call = jobCall({ ...surroundings(campaign, x), experiment: x.id }, key, tool, prepared);
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

const size = (m: Message): number => Buffer.byteLength(JSON.stringify(m));

/** Drops much at once and seldom, so that a provider's cache of the beginning holds for many turns. */
function makeRoom(messages: Message[]): void {
  if (messages.reduce((sum, m) => sum + size(m), 0) <= ROOM_BYTES) return;
  const ours = messages.flatMap((m, i) => (m.role === "user" && i > 0 ? [i] : [])).slice(0, -KEPT);
  for (const i of ours) {
    const m = messages[i];
    if (m?.role === "user") messages[i] = { ...m, answers: m.answers.map((a) => (a.text.length > 500 ? { ...a, text: DROPPED } : a)) };
  }
}
