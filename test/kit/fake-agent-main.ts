// A gpu-agent's command line with a FakeAgent behind it: `--describe`, or serve jobs until SIGTERM; what it builds into a folder, the real agent builds. FAKE_AGENT_WORK_MS: how long each job takes.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadSeed, publicKeyOf } from "../../coordinator/src/broker/principals.ts";
import { FakeAgent } from "./fake-agent.ts";

if (process.argv[2] === "build") await import("../../gpu-agent/src/main.ts");

if (process.argv[2] === "hold-machine") {
  process.stdout.write("held\n");
  process.stdin.on("close", () => process.exit(0)).resume();
  await new Promise(() => undefined);
}
const { values } = parseArgs({
  strict: false,
  options: { data: { type: "string" }, servers: { type: "string" }, "agent-id": { type: "string" } },
});
const text = (value: string | boolean | undefined) => (typeof value === "string" ? value : "");
const [data, agentId, pool] = [text(values.data), text(values["agent-id"]), "fake"];
const seed = loadSeed(join(data, "agent.nk"));

if (process.argv.includes("--describe")) {
  process.stdout.write(`${JSON.stringify({ v: 1, kind: "agent.description", agentId, publicKey: publicKeyOf(seed), pools: [pool] })}\n`);
  process.exit(0);
}

const workMs = Number(process.env["FAKE_AGENT_WORK_MS"] ?? "0");
const agent: FakeAgent = await FakeAgent.start({
  url: text(values.servers),
  agentId,
  seed,
  pool,
  work: async (job, lease) => {
    const beat = setInterval(() => agent.report(job, lease), 500);
    await new Promise((resolve) => setTimeout(resolve, workMs));
    clearInterval(beat);
    return agent.outcome(job, lease);
  },
});
// A broker that is gone already can't be said goodbye to.
const leave = () => {
  setTimeout(() => process.exit(0), 1_000);
  void agent[Symbol.asyncDispose]().finally(() => process.exit(0));
};
process.on("SIGTERM", leave);
process.once("disconnect", leave);
process.channel?.unref();
