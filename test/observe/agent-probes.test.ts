import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { answerProbes } from "../../gpu-agent/src/probes.ts";
import { joiningAgent } from "../kit/agent-process.ts";
import { site } from "../kit/sites.ts";
import { alive } from "../kit/vibeserve-process.ts";

const like = (pattern: RegExp) => expect.stringMatching(pattern) as string;
vi.setConfig({ testTimeout: 120_000 });

test("an agent is alive from its start, ready once it is approved and registered, and not ready while its broker is away", async () => {
  using s = site({ VIBESERVE_ADVERTISE: "localhost" });
  const up = s.at.run("up", "--listen", "0.0.0.0:0");
  await up.printed(/coordinator ready/);
  const { line } = await s.at.answer<{ line: string }>("agents", "token", "--pool", "mine");
  const dir = join(s.at.dir, "node-1");
  mkdirSync(dir);
  const agent = joiningAgent("node-1", dir, ["--join", line, "--http", "127.0.0.1:0", "--unsafe-no-sandbox"]);
  const port = () => /"port":(\d+),"msg":"answering probes"/.exec(agent.log())?.[1];
  const ask = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port()}${path}`);
    return { status: response.status, text: await response.text() };
  };
  const becomes = (status: number) =>
    expect.poll(async () => (await ask("/readyz")).status, { timeout: 60_000, interval: 200 }).toBe(status);
  try {
    await agent.said(/waiting for approval/);
    expect(await ask("/livez")).toEqual({ status: 200, text: "ok\n" });
    expect(await ask("/readyz")).toEqual({
      status: 503,
      text: like(
        /^\[\+\]event-loop ok\n\[-\]connected failed: the broker was never reached.*\n\[-\]registered failed: it has not joined yet.*\n\[\+\]disk ok\nreadyz check failed\n$/,
      ),
    });
    expect(await s.at.run("agents", "approve", "node-1").ended).toBe(0);
    await becomes(200);
    await s.at.stop();
    await becomes(503);
    expect((await ask("/readyz")).text).toMatch(/\[-\]connected failed/);
    expect((await ask("/livez?verbose")).text).toBe("[+]event-loop ok\nlivez check passed\n");
    agent.kill("SIGTERM");
    await agent.exited;
  } finally {
    agent.kill("SIGKILL");
    await s.at.stop();
  }
  expect(alive(agent.pid)).toBe(false);
});

test("an entry that is not written and an address that can't be had are said", async () => {
  const port = await answerProbes(
    { host: "127.0.0.1", port: 0 },
    { data: "/", connected: () => Promise.resolve(), registered: () => "it is draining" },
  );
  const response = await fetch(`http://127.0.0.1:${port}/readyz`);
  expect(response.status).toBe(503);
  const text = await response.text();
  for (const line of ["[+]connected ok", "[-]registered failed: it is draining"]) expect(text).toContain(line);
  await expect(answerProbes({ host: "127.0.0.1", port }, { data: "/" })).rejects.toThrow(
    /gpu-agent: --http 127\.0\.0\.1:\d+: .*EADDRINUSE/,
  );
});
