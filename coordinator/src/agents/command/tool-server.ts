import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { McpServer, fromJsonSchema } from "@modelcontextprotocol/server";
import { serveStdio, StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import { packageVersion } from "../../version.ts";
import type { ToolSpec } from "../conversation.ts";

/** Carries out one call. May take long; must end soon when the signal aborts: the CLI took the call back, or is gone. */
export type CallTool = (name: string, input: unknown, signal: AbortSignal) => Promise<{ text: string; isError: boolean }>;

/** A CLI starts one server, some one a subagent. */
const MAX_CONNECTIONS = 8;
/** A call holds a file of a candidate at most. */
const MAX_MESSAGE_BYTES = 2 * 2 ** 20;

/**
 * Our tools over MCP on a unix socket, each connection as if it were a process's stdio (inside/mcp-stdio.mjs is at its other end). Knows no tool: what a
 * call means is the caller's; only tools that were offered are called, with an input of their schema. A call that rejects is answered as a tool error without its words, which go to `onError`. Closing waits for the calls that are under way.
 */
export async function toolServer(
  socketPath: string,
  tools: readonly ToolSpec[],
  call: CallTool,
  onError: (error: unknown) => void,
): Promise<AsyncDisposable> {
  const sockets = new Set<Socket>();
  const running = new Set<Promise<unknown>>();
  const serverOf = (gone: AbortSignal): McpServer => {
    const server = new McpServer({ name: "vibeserve", version: packageVersion() });
    for (const { name, description, input } of tools)
      server.registerTool(name, { description, inputSchema: fromJsonSchema({ ...input, type: "object" }) }, async (args, { mcpReq }) => {
        const called = call(name, args, AbortSignal.any([mcpReq.signal, gone]));
        running.add(called);
        try {
          const { text, isError } = await called;
          return { content: [{ type: "text", text }], isError };
        } catch (error) {
          onError(error);
          return { content: [{ type: "text", text: "this tool failed through no fault of yours" }], isError: true };
        } finally {
          running.delete(called);
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
      await Promise.allSettled(running);
    },
  };
}
