import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AgentRow } from "@vibeserve/shared";
import { expect, test, vi } from "vitest";
import { joiningAgent, type AgentProcess } from "../kit/agent-process.ts";
import { site } from "../kit/sites.ts";
import { alive, type Site } from "../kit/vibeserve-process.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const PUBLIC = { VIBESERVE_ADVERTISE: "localhost" };

const gpuAgent = (dir: string, ...flags: string[]): AgentProcess => joiningAgent("node-1", dir, flags);

const stateOf = async (at: Site) => (await at.answer<{ agents: AgentRow[] }>("agents")).agents.map((a) => [a.agentId, a.state]);

test("a real agent joins over TLS by a line, waits through a kill -9 of the coordinator, works when approved, and ends with 77 when revoked", async () => {
  using s = site(PUBLIC);
  const up = s.at.run("up", "--listen", "0.0.0.0:0");
  await up.printed(/coordinator ready: broker tls:\/\/127\.0\.0\.1:\d+/);
  const { line, command } = await s.at.answer<{ line: string; command: string }>("agents", "token", "--pool", "mine");
  expect(command).toBe(`npx vibeserve agent --join '${line}'`);
  expect(line).toMatch(/^tls:\/\/localhost:\d+#/);
  const dir = join(s.at.dir, "node-1");
  mkdirSync(dir);
  writeFileSync(join(dir, "line"), line, { mode: 0o600 });
  const agent = gpuAgent(dir, "--join-file", join(dir, "line"));
  try {
    await agent.said(/waiting for approval; .* a person says: vibeserve agents approve node-1 /);
    expect(await stateOf(s.at)).toEqual([["node-1", "waiting"]]);
    up.child.kill("SIGKILL");
    await up.ended;
    const again = s.at.run("up", "--listen", "0.0.0.0:0");
    await again.printed(/coordinator ready/);
    expect(await stateOf(s.at)).toEqual([["node-1", "waiting"]]);
    await s.at.answer("agents", "approve", "node-1");
    await expect.poll(() => stateOf(s.at), { timeout: 30_000, interval: 500 }).toEqual([["node-1", "ready"]]);
    expect((await s.at.answer<{ agents: AgentRow[] }>("agents")).agents[0]?.pools).toEqual(["mine"]);
    for (const file of ["membership.json", "agent.nk"]) expect(statSync(join(dir, file)).mode & 0o777).toBe(0o600);
    await s.at.answer("agents", "revoke", "node-1", "--reason", "stolen");
    expect((await agent.exited).code).toBe(77);
    expect(agent.log()).toMatch(/this key was revoked at .*: stolen/);
    expect(await stateOf(s.at)).toEqual([["node-1", "revoked"]]);
    // Started again without a line it knows where it belonged, and hears the same.
    const later = gpuAgent(dir);
    expect((await later.exited).code).toBe(77);
    expect(later.log()).toMatch(/THE BROKER DOES NOT KNOW THIS AGENT'S KEY/);
    const [, secret = ""] = line.split("#");
    const logs = readdirSync(join(s.at.data, "logs")).map((name) => readFileSync(join(s.at.data, "logs", name), "utf8"));
    for (const part of secret.split(".").slice(0, 2))
      for (const log of [...logs, agent.log(), later.log()]) expect(log).not.toContain(part);
  } finally {
    agent.kill("SIGKILL");
    await s.at.stop();
  }
  expect(alive(agent.pid)).toBe(false);
});

test("an agent that is told to end when idle says goodbye, ends with 0, and is away afterwards", async () => {
  using s = site(PUBLIC);
  const up = s.at.run("up", "--listen", "0.0.0.0:0");
  await up.printed(/coordinator ready/);
  const { line } = await s.at.answer<{ line: string }>("agents", "token", "--labels", "vibeserve.dev/device.kind=cpu");
  const dir = join(s.at.dir, "node-1");
  mkdirSync(dir);
  writeFileSync(join(dir, "line"), line, { mode: 0o600 });
  const agent = gpuAgent(dir, "--join-file", join(dir, "line"), "--exit-when-idle", "10");
  try {
    await expect.poll(() => stateOf(s.at), { timeout: 60_000, interval: 250 }).toEqual([["node-1", "ready"]]);
    expect((await agent.exited).code).toBe(0);
    expect(agent.log()).toMatch(/no job for so long; it ends/);
    expect(await stateOf(s.at)).toEqual([["node-1", "away"]]);
  } finally {
    agent.kill("SIGKILL");
    await s.at.stop();
  }
});

test("plaintext to another machine is refused by the agent and by verbs, with exit code 2 and what to do", async () => {
  using s = site();
  const dir = join(s.at.dir, "node-1");
  mkdirSync(dir);
  const seed = `SU${"A".repeat(56)}`;
  for (const flags of [
    ["--servers", "nats://192.0.2.1:4222"],
    ["--join", `nats://192.0.2.1:4222#${"A".repeat(43)}.${seed}`],
  ]) {
    const agent = gpuAgent(dir, ...flags);
    expect((await agent.exited).code).toBe(2);
    expect(agent.log()).toMatch(/nats:\/\/192\.0\.2\.1:4222 is not TLS and not this machine.*Give tls:\/\/HOST:PORT/);
  }
  const spoilt = gpuAgent(dir, "--join", `tls://192.0.2.1:4222#${"A".repeat(40)}`);
  expect((await spoilt.exited).code).toBe(2);
  expect(spoilt.log()).toMatch(/join: not a join line/);
  expect(spoilt.log()).not.toContain("AAAA");
  mkdirSync(s.at.data, { recursive: true });
  writeFileSync(
    join(s.at.data, "client.json"),
    JSON.stringify({ v: 1, kind: "client", servers: ["nats://192.0.2.1:4222"], seed, pid: 1, startedAt: 1 }),
  );
  const status = s.at.run("status");
  expect(await status.ended).toBe(2);
  expect(status.err()).toMatch(/is not TLS and not this machine/);
});

test("what a person mistypes is named: a label, a time, a pool, an id, an address", async () => {
  using s = site();
  for (const [args, words] of [
    [["agents", "token", "--labels", "gpu"], /--labels: "gpu" is not key=value/],
    [["agents", "token", "--ttl", "soon"], /--ttl soon: not a duration/],
    [["agents", "token", "--pool", "a.b"], /--pool: must be 1–64 letters/],
    [["agents", "approve", "a.b"], /a\.b: not an agent's id/],
    [["up", "--listen", "::::x"], /--listen ::::x: not HOST:PORT/],
  ] as const) {
    const command = s.at.run(...args);
    expect(await command.ended).toBe(2);
    expect(command.err()).toMatch(words);
  }
});
