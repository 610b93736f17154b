import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { exchangeFile } from "../../coordinator/src/agents/record.ts";
import { MessagesServer, textOf, type Asked, type Script, type ScriptBlock } from "./messages-server.ts";

/**
 * `node test/kit/parked-endpoint.ts DIR`: a Messages API whose model is whoever answers its files. Each request is written to DIR as `NNN-<turn>.md` (what is new
 * in it, to be read) and `NNN-<turn>.request.json` (all of it); the answer is taken from `NNN-<turn>.reply.json` once that is there: `{"blocks": [{"text": …} |
 * {"tool": …, "input": …}]}` or `{"reply": "…"}`. Prints its URL.
 */
export async function parkedEndpoint(dir: string): Promise<MessagesServer> {
  mkdirSync(dir, { recursive: true });
  let n = readdirSync(dir).filter((f) => f.endsWith(".request.json")).length;
  return MessagesServer.start(async (asked) => {
    n++;
    const name = `${String(n).padStart(3, "0")}-${exchangeFile(String(asked.headers["x-vibeserve-turn"])).replace(/\.json$/, "")}`;
    writeFileSync(join(dir, `${name}.request.json`), JSON.stringify(asked.body, null, 1));
    // Under another name until it is whole: whoever waits for it may read it at once.
    writeFileSync(join(dir, `${name}.md.tmp`), shown(asked.body));
    renameSync(join(dir, `${name}.md.tmp`), join(dir, `${name}.md`));
    const reply = join(dir, `${name}.reply.json`);
    for (;;) {
      const script = existsSync(reply) ? parsed(reply) : null;
      if (script) return script;
      await sleep(300);
    }
  });
}

/** Null while the file is being written. */
function parsed(path: string): Script | null {
  try {
    const reply = JSON.parse(readFileSync(path, "utf8")) as { reply: string } | { blocks: ScriptBlock[] };
    if ("reply" in reply) return { blocks: [{ text: reply.reply }] };
    // The API's ids are unique in a conversation.
    const blocks = reply.blocks.map((b, i) => ("tool" in b ? { id: `toolu_${Date.now()}_${i}`, ...b } : b));
    return { blocks };
  } catch {
    return null;
  }
}

function shown(body: Asked["body"]): string {
  const last = textOf(body.messages.at(-1));
  if (body.messages.length > 1) return last;
  const [what, rules] = body.output_config === undefined ? ["tools", body.tools] : ["schema of the answer", body.output_config];
  const system = (body.system as { text: string }[]).map(({ text }) => text).join("\n");
  return `# system\n\n${system}\n\n# ${what}\n\n${JSON.stringify(rules, null, 1)}\n\n# message\n\n${last}`;
}

if (import.meta.main) {
  const [dir] = process.argv.slice(2);
  if (dir === undefined) throw new Error("usage: node test/kit/parked-endpoint.ts DIR");
  process.stdout.write(`${(await parkedEndpoint(dir)).url}\n`);
}
