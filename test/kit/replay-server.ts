import type { Block } from "../../coordinator/src/agents/conversation.ts";
import type { Recording } from "../fixtures/transcripts/recording.ts";
import { MessagesServer, type Asked, type Script, type ScriptBlock } from "./messages-server.ts";
import { assess, decision, roleOf, submit, verdict } from "./scripted-model.ts";

/**
 * A Messages API that answers each turn with what the model of a recording said in the turn of the same name: role, experiment and ordinal. A turn that the
 * recording does not have (another machine's measurements may take another way) is answered so that the campaign goes on: the work is handed in, vetoed or
 * not judged, and the search ends. `missing`: their names.
 */
export async function replayServer({ replies }: Recording): Promise<MessagesServer & { missing: string[] }> {
  const missing: string[] = [];
  const server = await MessagesServer.start((asked: Asked): Script => {
    const turn = String(asked.headers["x-vibeserve-turn"]).replace(/\.\d+$/, "");
    const reply = replies[turn];
    if (reply && "reply" in reply) return { reply: reply.reply };
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

function scriptOf(block: Block): ScriptBlock[] {
  if (block.type === "text") return [{ text: block.text }];
  return block.type === "call" ? [{ id: block.id, tool: block.tool, input: block.input }] : [];
}
