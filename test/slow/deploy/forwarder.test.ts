import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AgentRow } from "@vibeserve/shared";
import { expect, onTestFailed, test } from "vitest";
import { TcpProxy } from "../../faults/tcp-proxy.ts";
import { joiningAgent } from "../../kit/agent-process.ts";
import { site } from "../../kit/sites.ts";
import type { Site } from "../../kit/vibeserve-process.ts";

async function states(at: Site): Promise<string[]> {
  return (await at.answer<{ agents: AgentRow[] }>("agents")).agents.map((a) => `${a.agentId} ${a.state}`);
}

test("behind a forwarder that knows nothing of NATS or TLS an agent joins by a line with the forwarder's address, and comes back when that was away", async () => {
  using s = site({ VIBESERVE_ADVERTISE: "localhost" });
  const up = s.at.run("up", "--listen", "0.0.0.0:0");
  await up.printed(/coordinator ready/);
  const { line } = await s.at.answer<{ line: string }>("agents", "token");
  const direct = Number(/^tls:\/\/localhost:(\d+)#/.exec(line)?.[1]);
  // What `socat TCP-LISTEN:…,fork TCP:…` does on a login node: bytes there and back.
  const login = await TcpProxy.open(`tls://127.0.0.1:${direct}`);
  const port = Number(new URL(login.url).port);
  const dir = join(s.at.dir, "inside");
  mkdirSync(dir);
  writeFileSync(join(dir, "line"), line.replace(`:${direct}#`, `:${port}#`), { mode: 0o600 });
  const agent = joiningAgent("inside", dir, ["--join-file", join(dir, "line"), "--log-level", "warn"]);
  onTestFailed(() => void process.stderr.write(agent.log()));
  const wait = { timeout: 60_000, interval: 500 };
  try {
    await expect.poll(() => states(s.at), wait).toEqual(["inside waiting"]);
    expect(await s.at.run("agents", "approve", "inside").ended).toBe(0);
    await expect.poll(() => states(s.at), wait).toEqual(["inside ready"]);
    expect(readFileSync(join(dir, "membership.json"), "utf8")).toContain(`localhost:${port}`);
    await login[Symbol.asyncDispose]();
    await expect.poll(() => states(s.at), wait).toEqual(["inside away"]);
    await using _ = await TcpProxy.open(`tls://127.0.0.1:${direct}`, port);
    await expect.poll(() => states(s.at), wait).toEqual(["inside ready"]);
    agent.kill("SIGTERM");
    expect((await agent.exited).code).toBe(0);
  } finally {
    agent.kill("SIGKILL");
    await s.at.stop();
  }
});
