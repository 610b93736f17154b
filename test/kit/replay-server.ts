import type { Block } from "../../coordinator/src/agents/conversation.ts";
import type { Recording } from "../fixtures/transcripts/recording.ts";
import { MessagesServer, type Asked, type Script, type ScriptBlock } from "./messages-server.ts";
import { assess, decision, roleOf, submit, verdict } from "./scripted-model.ts";

/**
 * A Messages API that answers each turn with what the model of a recording said in the turn of the same name: role, experiment and ordinal. A turn that the
 * recording does not have (another machine's measurements may take another way) is answered so that the campaign goes on: the work is handed in, vetoed or
 * not judged, and the search ends. `missing`: their names. Of a planner's decision what is not legal here (an idea that was set aside there and is done here)
 * is left out.
 */
export async function replayServer({ replies }: Recording): Promise<MessagesServer & { missing: string[] }> {
  const missing: string[] = [];
  const server = await MessagesServer.start((asked: Asked): Script => {
    const turn = String(asked.headers["x-vibeserve-turn"]).replace(/\.\d+$/, "");
    const reply = replies[turn];
    if (reply && "reply" in reply) return { reply: legal(reply.reply, asked) };
    if (reply) return { blocks: reply.content.flatMap(scriptOf) };
    missing.push(turn);
    switch (roleOf(asked)) {
      case "planner":
        return decision({ reason: "the recording ends here" });
      case "implementer":
        return { blocks: [submit({ declared: "needs-debugging", summary: "the recording has no such turn" })] };
      case "judge":
        return { blocks: verdict("veto", { reason: "the recording has no such turn" }) };
      case "evaluator":
        return { blocks: assess({ mechanism: "unclear", evidence: "the recording has no such turn" }) };
    }
  });
  return Object.assign(server, { missing });
}

interface Decided {
  issue: string;
  edits: { issue: string }[];
}

function legal(reply: string, { body }: Asked): string {
  const { format } = body.output_config as { format: { schema: { properties: { issue: { enum: string[] } } } } };
  const open = format.schema.properties.issue.enum;
  const d = JSON.parse(reply) as Decided;
  const edits = d.edits.filter((e) => open.includes(e.issue));
  return JSON.stringify({ ...d, edits, issue: open.includes(d.issue) ? d.issue : "" });
}

function scriptOf(block: Block): ScriptBlock[] {
  if (block.type === "text") return [{ text: block.text }];
  return block.type === "call" ? [{ id: block.id, tool: block.tool, input: block.input }] : [];
}
