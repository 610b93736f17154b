import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { Server, type Tool } from "@modelcontextprotocol/server";
import { serveStdio, StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import { packageVersion } from "../../version.ts";
import type { ToolSpec } from "../conversation.ts";

/** Carries out one call. May take long; ends early when the signal aborts: the CLI took the call back, or is gone. */
export type CallTool = (name: string, input: unknown, signal: AbortSignal) => Promise<{ text: string; isError: boolean }>;

/** A CLI starts one server, some one a subagent. */
const MAX_CONNECTIONS = 8;
/** A call holds a file of a candidate at most. */
const MAX_MESSAGE_BYTES = 2 * 2 ** 20;

/**
 * Our tools over MCP on a unix socket, each connection as if it were a process's stdio (inside/mcp-stdio.mjs is at its other end). Knows no tool: what a
 * call means, and what may be called, is the caller's. A call that rejects is answered as a tool error without its words, which go to `onError`.
 */
export async function toolServer(
  socketPath: string,
  tools: readonly ToolSpec[],
  call: CallTool,
  onError: (error: unknown) => void,
): Promise<AsyncDisposable> {
  const listed = tools.map(({ name, description, input }): Tool => ({ name, description, inputSchema: { ...input, type: "object" } }));
  const sockets = new Set<Socket>();
  const serverOf = (gone: AbortSignal): Server => {
    const server = new Server({ name: "vibeserve", version: packageVersion() }, { capabilities: { tools: {} } });
    server.setRequestHandler("tools/list", () => ({ tools: listed }));
    server.setRequestHandler("tools/call", async ({ params }, { mcpReq }) => {
      const answer = (text: string, isError: boolean) => ({ content: [{ type: "text" as const, text }], isError });
      if (!tools.some(({ name }) => name === params.name)) return answer(`there is no tool ${params.name}`, true);
      try {
        const { text, isError } = await call(params.name, params.arguments ?? {}, AbortSignal.any([mcpReq.signal, gone]));
        return answer(text, isError);
      } catch (error) {
        onError(error);
        return answer("this tool failed through no fault of yours", true);
      }
    });
    return server;
  };
  const listener = createServer((socket) => {
    const gone = new AbortController();
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => {
      sockets.delete(socket);
      gone.abort();
    });
    const transport = new StdioServerTransport(socket, socket, { maxBufferSize: MAX_MESSAGE_BYTES });
    // Whatever a client sends wrongly is its own affair.
    serveStdio(() => serverOf(gone.signal), { transport, onerror: () => undefined });
  });
  listener.maxConnections = MAX_CONNECTIONS;
  listener.listen(socketPath);
  await once(listener, "listening");
  return {
    [Symbol.asyncDispose]: async () => {
      listener.close();
      for (const socket of sockets) socket.destroy();
      await once(listener, "close");
    },
  };
}
