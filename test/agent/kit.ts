import { request } from "node:http";
import { realpathSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { readTable, realUid } from "../../gpu-agent/src/process/proc-table.ts";
import { bwrapPaths } from "../../gpu-agent/src/sandbox/bwrap-paths.ts";
import { probeSandbox } from "../../gpu-agent/src/sandbox/probe-sandbox.ts";
import type { Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import type { ServerSpec } from "../../gpu-agent/src/serve/server-spec.ts";

export const CACHE = process.env["VIBESERVE_CACHE"] ?? join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "vibeserve");
export const NODE = realpathSync(process.execPath);
export const CANDIDATES = join(import.meta.dirname, "candidates");

/** The sandbox of this machine, found as the agent finds it. */
export const bubblewrap = (): Promise<Sandbox> => probeSandbox({ bwrapPaths: bwrapPaths(null, CACHE), unsafe: false });
export const noSandbox = (): Promise<Sandbox> => probeSandbox({ bwrapPaths: [], unsafe: false });

/** A server that is test/agent/candidates/server.mjs in one of its modes. */
export function cheat(mode: string, arg = "", more: Partial<ServerSpec> = {}): ServerSpec {
  return {
    argv: [NODE, join(CANDIDATES, "server.mjs"), "--socket", "${SOCKET}", "--mode", mode, "--arg", arg],
    env: {},
    mounts: [
      { from: dirname(NODE), mode: "ro" },
      { from: CANDIDATES, mode: "ro" },
    ],
    cpus: "0",
    healthTimeoutMs: 15_000,
    provenance: "shipped",
    ...more,
  };
}

/** GET on a unix socket, or POST where there is a body, JSON. */
export function ask(socketPath: string, path: string, body?: object): Promise<Record<string, unknown>> {
  const text = body === undefined ? "" : JSON.stringify(body);
  const method = body === undefined ? "GET" : "POST";
  return new Promise((resolve, reject) => {
    const req = request({ socketPath, path, method, agent: false, headers: { "content-length": Buffer.byteLength(text) } }, (res) => {
      let text = "";
      res.on("data", (d: Buffer) => (text += d.toString()));
      res.on("end", () => resolve(JSON.parse(text) as Record<string, unknown>));
      res.on("error", reject);
    });
    req.on("error", reject);
    req.end(text);
  });
}

/** Processes that look like ours by what they run. */
export function processesOf(uid: number): number[] {
  return readTable()
    .filter((p) => realUid(p.pid) === uid && p.state !== "Z")
    .map((p) => p.pid);
}
