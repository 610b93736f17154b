import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AgentDecided, AgentDecision } from "@vibeserve/shared";
import { afterAll, expect, test } from "vitest";
import { connectBus } from "../../../coordinator/src/bus/connect.ts";
import { Membership } from "../../../gpu-agent/src/bus/membership.ts";
import { MANIFEST } from "../../agent/tree-kit.ts";
import { joiningAgent, type AgentProcess } from "../../kit/agent-process.ts";
import { joinLine } from "../../kit/joiner.ts";
import { natsOf, startCluster } from "../../kit/nats-cluster.ts";
import { factOf, startCoordinator } from "../../kit/real-coordinator.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { tinyTarget } from "../../kit/tiny-stack.ts";

const NAMESPACE = `vs-test-${process.pid}`;
const [OUTSIDE, INSIDE] = [`vsh${process.pid}`, `vsn${process.pid}`];
const NET = `10.213.${process.pid % 256}`;
const HOST = `${NET}.1`;

const ip = (...args: string[]): void => void execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });

/** A namespace whose one way out is a veth to this machine; or why there can't be one. */
function makeNamespace(): string | null {
  try {
    ip("netns", "add", NAMESPACE);
    ip("link", "add", OUTSIDE, "type", "veth", "peer", "name", INSIDE, "netns", NAMESPACE);
    ip("addr", "add", `${HOST}/30`, "dev", OUTSIDE);
    ip("link", "set", OUTSIDE, "up");
    for (const args of [
      ["addr", "add", `${NET}.2/30`, "dev", INSIDE],
      ["link", "set", INSIDE, "up"],
      ["link", "set", "lo", "up"],
    ])
      ip("-n", NAMESPACE, ...args);
    execFileSync("ip", ["netns", "exec", NAMESPACE, "true"]);
    return null;
  } catch (error) {
    removeNamespace();
    return `no network namespace can be made here: ${error instanceof Error ? error.message.trim() : String(error)}`;
  }
}

function removeNamespace(): void {
  for (const args of [
    ["link", "del", OUTSIDE],
    ["netns", "del", NAMESPACE],
  ])
    try {
      ip(...args);
    } catch {
      // Not there.
    }
}

/** The real agent's command line, with nothing of the network but its namespace's. */
const agentInside = (dir: string, ...flags: string[]): AgentProcess =>
  joiningAgent("node-1", dir, flags, { within: ["ip", "netns", "exec", NAMESPACE] });

const why = makeNamespace();
if (why !== null) process.stdout.write(`skipped: ${why}\n`);
afterAll(removeNamespace);

test.skipIf(why !== null)(
  "an agent in a network namespace of its own joins a 3-node cluster over TLS by a line, works, comes back after its link was down, and is cut off by all three servers",
  async () => {
    using dir = tempDir("namespace");
    await using cluster = await startCluster(dir.path, 3, { host: HOST });
    await using real = await startCoordinator(dir.path, { settings: { nats: natsOf(cluster) } });
    // Builds in no time, without a compiler.
    const stack = join(dir.path, "root", "stacks", "tiny");
    writeFileSync(join(stack, "stack.json"), JSON.stringify({ ...MANIFEST, name: "tiny" }));
    writeFileSync(join(stack, "build.sh"), '#!/bin/sh\nprintf "#!/bin/sh\\n" > "$2"\nchmod 755 "$2"\n');
    chmodSync(join(stack, "build.sh"), 0o755);
    await using client = await real.client();
    const { line } = await joinLine(client, { labels: { "vibeserve.dev/device.kind": "cpu" } });
    expect(line).toMatch(/^(tls:\/\/10\.213\.\d+\.1:\d+,?){3}#/);
    const own = join(dir.path, "node-1");
    mkdirSync(own);
    writeFileSync(join(own, "line"), line, { mode: 0o600 });
    const joined = real.reported("agent.joined");
    const agent = agentInside(own, "--join-file", join(own, "line"));
    try {
      expect(await Promise.race([joined, agent.exited.then(() => agent.log())])).toMatchObject({ agentId: "node-1" });
      const builtBy = async () => {
        const actor = await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null });
        return factOf(real, actor, "job.settled", ({ result }) => result.agentId === "node-1");
      };
      expect(await builtBy()).toMatchObject({ accepted: true, result: { outcome: { status: "built" } } });

      const lost = real.reported("agent.left");
      ip("link", "set", OUTSIDE, "down");
      expect(await lost).toMatchObject({ agentId: "node-1" });
      const back = real.reported("agent.joined");
      ip("link", "set", OUTSIDE, "up");
      expect(await Promise.race([back, agent.exited.then(() => agent.log())])).toMatchObject({ agentId: "node-1" });
      expect(await builtBy()).toMatchObject({ accepted: true, result: { outcome: { status: "built" } } });

      const membership = Membership.parse(JSON.parse(readFileSync(join(own, "membership.json"), "utf8")));
      const credential = {
        ca: membership.ca ?? "",
        seed: readFileSync(join(own, "agent.nk"), "utf8").trim(),
        claim: membership.claim,
        principal: "node-1",
      };
      for (const { url } of cluster.nodes) await (await connectBus({ ...credential, servers: [url] })).close();
      const decision = { v: 1 as const, kind: "agent.decision" as const, agentId: "node-1", decision: "revoke" as const, reason: "stolen" };
      await client.ask("agent-decide", AgentDecision, decision, AgentDecided);
      for (const { url } of cluster.nodes)
        await expect(connectBus({ ...credential, servers: [url] })).rejects.toThrow(/Authorization Violation/);
      expect((await agent.exited).code).toBe(77);
      expect(agent.log()).toMatch(/this key was revoked at .*: stolen/);
      // Started again it knows where it belonged, and hears the same.
      const again = agentInside(own);
      expect((await again.exited).code, again.log()).toBe(77);
    } finally {
      agent.kill("SIGKILL");
    }
  },
);
