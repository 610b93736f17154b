import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import type { AgentRow } from "@vibeserve/shared";
import { expect, onTestFailed, test } from "vitest";
import { joiningAgent } from "../../kit/agent-process.ts";
import { site } from "../../kit/sites.ts";
import type { Site } from "../../kit/vibeserve-process.ts";

/** What `socat TCP-LISTEN:…,fork TCP:…` does on a login node: bytes there and back. */
async function forward(to: number, from = 0): Promise<{ port: number; close(): Promise<void> }> {
  const open = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(to, "localhost");
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.on("error", () => other.destroy());
      one.once("close", () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  }).listen(from, "localhost");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      const closed = once(server, "close");
      server.close();
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

async function states(at: Site): Promise<string[]> {
  const command = at.run("agents", "--json");
  expect(await command.ended, command.err()).toBe(0);
  return (JSON.parse(command.out()) as { agents: AgentRow[] }).agents.map((a) => `${a.agentId} ${a.state}`);
}

test("behind a forwarder that knows nothing of NATS or TLS an agent joins by a line with the forwarder's address, and comes back when that was away", async () => {
  using s = site({ VIBESERVE_ADVERTISE: "localhost" });
  const up = s.at.run("up", "--listen", "0.0.0.0:0");
  await up.printed(/coordinator ready/);
  const token = s.at.run("agents", "token", "--json");
  expect(await token.ended).toBe(0);
  const { line } = JSON.parse(token.out()) as { line: string };
  const direct = Number(/^tls:\/\/localhost:(\d+)#/.exec(line)?.[1]);
  const login = await forward(direct);
  const dir = join(s.at.dir, "inside");
  mkdirSync(dir);
  writeFileSync(join(dir, "line"), line.replace(`:${direct}#`, `:${login.port}#`), { mode: 0o600 });
  const agent = joiningAgent("inside", dir, ["--join-file", join(dir, "line"), "--log-level", "warn"]);
  onTestFailed(() => void process.stderr.write(agent.log()));
  const wait = { timeout: 60_000, interval: 500 };
  try {
    await expect.poll(() => states(s.at), wait).toEqual(["inside waiting"]);
    expect(await s.at.run("agents", "approve", "inside").ended).toBe(0);
    await expect.poll(() => states(s.at), wait).toEqual(["inside ready"]);
    expect(readFileSync(join(dir, "membership.json"), "utf8")).toContain(`localhost:${login.port}`);
    await login.close();
    await expect.poll(() => states(s.at), wait).toEqual(["inside away"]);
    const again = await forward(direct, login.port);
    await expect.poll(() => states(s.at), wait).toEqual(["inside ready"]);
    agent.kill("SIGTERM");
    expect((await agent.exited).code).toBe(0);
    await again.close();
  } finally {
    agent.kill("SIGKILL");
    await s.at.stop();
  }
});
