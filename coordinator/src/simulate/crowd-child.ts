// Simulated agents, each with a connection and key of its own: `crowd-child.ts URL FILE`, FILE: JSON of a CrowdFile. Says "ready" to its parent, answers "waits" and ends with it.
import { readFileSync } from "node:fs";
import { createRng } from "@vibeserve/shared";
import type { CrowdFile, CrowdMember } from "./crowd.ts";
import { SimulatedAgent } from "./simulated-agent.ts";
import { SimulatedWork } from "./simulated-work.ts";

const [url = "", file = ""] = process.argv.slice(2);
process.once("disconnect", () => process.exit(0));
const { members, model } = JSON.parse(readFileSync(file, "utf8")) as CrowdFile;
const work = model && new SimulatedWork(model);
/** From when a job was granted until its agent had it, ms. */
const waits: number[] = [];

const start = ({ agentId, seed, pool, devices }: CrowdMember): Promise<SimulatedAgent> =>
  SimulatedAgent.start({
    ...{ url, agentId, seed, pool, devices },
    work: async (job, lease, agent) => {
      if (!work) return { status: "built", buildDigest: "0".repeat(64), cached: true, seconds: 0, bytes: 1 };
      waits.push(Date.now() - lease.grantedAt);
      return work.do(agent, job, lease);
    },
    // One that was lost takes what it did with it.
    failed: (error, { nc }) => {
      if (!nc.isClosed()) process.stderr.write(`${agentId}: ${String(error)}\n`);
    },
  });

/** It vanishes with what it runs, from time to time, and comes back as another life of itself. */
async function live(member: CrowdMember): Promise<void> {
  let agent = await start(member);
  const kind = model?.fleet.kinds.find((k) => k.name === member.pool);
  const { agentLossPerDay = 0, repairS = 0 } = kind?.faults ?? model?.fleet.faults ?? {};
  if (!model || agentLossPerDay === 0) return;
  const random = createRng(`${model.seed} losses of ${member.agentId}`);
  const lose = () =>
    setTimeout(
      () => {
        void agent[Symbol.asyncDispose]();
        setTimeout(() => void start(member).then((again) => ((agent = again), lose())), (1_000 * repairS) / model.speed);
      },
      (random.exponential() * 86_400_000) / agentLossPerDay / model.speed,
    );
  lose();
}

/** Dialling: each is a handshake with a signature on both sides. */
const AT_ONCE = 32;
for (let from = 0; from < members.length; from += AT_ONCE) await Promise.all(members.slice(from, from + AT_ONCE).map(live));
process.on("message", (question) => (question === "waits" ? process.send?.(waits) : undefined));
process.send?.("ready");
