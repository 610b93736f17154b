import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { TinyCoordinator } from "../agent/fleet-kit.ts";
import type { AgentProcess } from "../kit/agent-process.ts";
import { FIXTURES } from "../agent/probe-kit.ts";
import { candidateFiles } from "../agent/tree-kit.ts";
import { TcpProxy } from "./tcp-proxy.ts";

/** Faults of a real agent process under a coordinator whose leases live 3 s without a word. */
const dir = tempDir("faults");
let fleet: TinyCoordinator;

beforeAll(async () => {
  fleet = new TinyCoordinator(await startBroker(dir.path), join(dir.path, "agents"));
  fleet.leaseTtlMs = 3_000;
  await fleet.open();
});
afterAll(async () => {
  await fleet.close();
  dir[Symbol.dispose]();
});

/** A build that takes this long. */
const slow = (seconds: number): Map<string, Uint8Array> =>
  candidateFiles("plain", { "build.sh": `#!/bin/sh\nsleep ${seconds}\nprintf '#!/bin/sh\\n' > "$2"; chmod +x "$2"\n` });
const results = (jobId: string) => fleet.results.filter((r) => r.jobId === jobId);
const granted = (jobId: string) => fleet.leases.filter((l) => l.jobId === jobId);
async function end(agent: AgentProcess): Promise<void> {
  agent.kill("SIGKILL");
  await agent.exited;
}

test("a frozen agent loses its job to another; when it thaws, its result is under a token that counts no more", async () => {
  const [one, two] = ["frozen-1", "frozen-2"];
  const first = await fleet.agent(one, "frozen");
  const job = await fleet.build("frozen", slow(2));
  await fleet.until("the job is at work", () => fleet.progress.some((p) => p.jobId === job.id));
  first.kill("SIGSTOP");
  const second = await fleet.agent(two, "frozen");
  await fleet.until("the second answers", () => results(job.id).some((r) => r.agentId === two));
  expect(fleet.lost).toMatchObject([{ jobId: job.id, attempt: 1, why: expect.stringMatching(/silent/) as string, as: "network" }]);
  first.kill("SIGCONT");
  // Either it hears first that its lease is over and gives up, or its late answer comes with the old token.
  const next = await fleet.build("frozen", candidateFiles("plain"), {});
  await fleet.until("the next job is answered", () => results(next.id).length > 0);
  const tokens = granted(job.id).map((l) => l.token);
  expect(tokens).toHaveLength(2);
  expect(results(job.id).filter((r) => r.leaseToken === tokens[1])).toHaveLength(1);
  for (const late of results(job.id).filter((r) => r.agentId === one)) expect(late).toMatchObject({ leaseToken: tokens[0], attempt: 1 });
  expect(fleet.jobsLeft("frozen")).toBe(0);
  await Promise.all([end(first), end(second)]);
});

test.each([10, -10])("an agent whose clock is %i minutes off keeps its lease, answers, and is believed", async (minutes) => {
  const id = `skewed${minutes > 0 ? "-ahead" : "-behind"}`;
  process.env["VIBESERVE_TEST_SHIFT_MS"] = String(minutes * 60_000);
  fleet.nodeFlags = ["--import", join(import.meta.dirname, "shift-clock.mjs")];
  const agent = await fleet.agent(id, id);
  fleet.nodeFlags = [];
  const job = await fleet.build(id, slow(4), { deadlineMs: 30_000 });
  await fleet.until("answered", () => results(job.id).length > 0);
  const [result] = results(job.id);
  expect(result).toMatchObject({ attempt: 1, outcome: { status: "built" }, leaseToken: granted(job.id)[0]?.token });
  // It really was off.
  expect(Math.round(((result?.endedAt ?? 0) - Date.now()) / 60_000)).toBe(minutes);
  expect(fleet.lost.filter((l) => l.jobId === job.id)).toEqual([]);
  expect(fleet.jobsLeft(id)).toBe(0);
  await end(agent);
});

test("a network that is cut and healed: the job is lost to silence, and the agent takes it again by itself", async () => {
  const id = "cut";
  await using proxy = await TcpProxy.open(fleet.broker.broker.url);
  fleet.dial = proxy.url;
  const agent = await fleet.agent(id, id);
  fleet.dial = null;
  const job = await fleet.build(id, slow(2));
  await fleet.until("the job is at work", () => fleet.progress.some((p) => p.jobId === job.id));
  proxy.cut();
  await fleet.until("the lease is lost", () => fleet.lost.some((l) => l.jobId === job.id));
  expect(fleet.lost.find((l) => l.jobId === job.id)).toMatchObject({ attempt: 1, as: "network" });
  proxy.heal();
  await fleet.until("answered under the newer lease", () => results(job.id).some((r) => r.attempt >= 2), 25_000);
  for (const r of results(job.id)) if (r.attempt === 1) expect(r.leaseToken).toBe(granted(job.id)[0]?.token);
  await fleet.until("nothing is left", () => fleet.jobsLeft(id) === 0);
  await end(agent);
});

test("a card that falls off the bus: its job fails as the device's, and the registry shows an agent without it", async () => {
  const id = "carded";
  const folder = join(dir.path, "tools");
  mkdirSync(folder);
  writeFileSync(
    join(folder, "nvidia-smi"),
    `#!/bin/sh
if [ -e ${folder}/lost ]; then echo 'Unable to determine the device handle for GPU 0000:03:00.0: GPU is lost. Reboot the system to recover this GPU' >&2; exit 15; fi
case "$*" in
*compute_cap*) printf 'uuid, compute_cap\\nGPU-cb3dfa52-e2f3-9ca4-a399-7d16041c3732, 9.0\\n' ;;
-q*) cat ${join(FIXTURES, "nvidia/h200-q.txt")} ;;
-L) printf 'GPU 0: NVIDIA H200 (UUID: GPU-cb3dfa52-e2f3-9ca4-a399-7d16041c3732)\\n' ;;
*) printf '\\tGPU0\\tCPU Affinity\\nGPU0\\t X \\t0-1\\n' ;;
esac
`,
  );
  chmodSync(join(folder, "nvidia-smi"), 0o755);
  const agent = await fleet.agent(id, id, "--vendor-tools", folder);
  await expect.poll(async () => (await fleet.registered(id))?.devices.map((d) => d.kind), { timeout: 10_000 }).toEqual(["nvidia"]);
  const { spec } = await fleet.build(id);
  if (spec.kind !== "build") throw new Error(spec.kind);
  writeFileSync(join(folder, "lost"), "");
  const job = await fleet.publish(id, { ...spec, kind: "exec", argv: ["true"], limitMs: 1_000 });
  await fleet.until("answered", () => results(job.id).length > 0);
  expect(results(job.id)[0]?.outcome).toMatchObject({ status: "failed", failure: { attribution: "device", code: "device-lost" } });
  await expect.poll(async () => (await fleet.registered(id))?.devices).toEqual([]);
  await end(agent);
});
