import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { encode, JobResult, subjects, type Job } from "@vibeserve/shared";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { digestOfFile } from "../../gpu-agent/src/artifact/file-digest.ts";
import { readGguf } from "../../gpu-agent/src/tokenizer/index.ts";
import { writeTinyGguf } from "../accuracy/tiny-gguf.ts";
import type { AgentProcess } from "../kit/agent-process.ts";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { weightsPath } from "../kit/weights.ts";
import { TinyCoordinator } from "./fleet-kit.ts";
import { CACHE } from "./kit.ts";
import { candidateFiles, MANIFEST } from "./tree-kit.ts";
import { namespaces, twoGpus, UUIDS } from "./two-gpus.ts";

const POOL = "gang";
const dir = tempDir("gang");
let fleet: TinyCoordinator;
let agent: AgentProcess;
let machine: ReturnType<typeof twoGpus>;
let model: { name: string; file: string; sha256: string };
let devices: string[];

beforeAll(async () => {
  if (!namespaces) return;
  const cache = join(dir.path, "cache");
  mkdirSync(join(cache, "weights"), { recursive: true });
  mkdirSync(join(CACHE, "reference"), { recursive: true });
  symlinkSync(join(CACHE, "reference"), join(cache, "reference"));
  const weights = join(cache, "weights/tiny.gguf");
  writeTinyGguf(weights, { dim: 32, ffn: 64, heads: 2, kvHeads: 1, layers: 2, vocab: 3000 }, "gang", readGguf(weightsPath()));
  model = { name: "tiny", file: "tiny.gguf", sha256: await digestOfFile(weights) };
  machine = twoGpus(dir.path);
  fleet = new TinyCoordinator(await startBroker(dir.path), join(dir.path, "agents"));
  fleet.leaseTtlMs = 3_000;
  fleet.within = machine.within;
  flags = ["--vendor-tools", machine.tools, "--cache", cache];
  await fleet.open();
  await start();
  devices = (await fleet.registered("node"))?.devices.map((d) => d.id) ?? [];
}, 120_000);
afterAll(async () => {
  if (namespaces) await fleet.close();
  dir[Symbol.dispose]();
});

let flags: string[] = [];
async function start(): Promise<void> {
  agent = await fleet.agent("node", POOL, ...flags);
  while ((await fleet.registered("node"))?.pid !== agent.pid) await sleep(50);
}

/** A stack that says what it sees and ends after so many seconds, without having served. */
function stack(seconds: number, maxDevices = 2): Map<string, Uint8Array> {
  const serve = `#!/bin/sh
echo "DEVICES=$1 CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES NCCL_SOCKET_IFNAME=$NCCL_SOCKET_IFNAME"
echo $(cd /dev && ls -d nvidia*)
echo shm $(df -k /dev/shm | awk 'END { print $2 }')
sleep ${seconds}
exit 3
`;
  const manifest = { ...MANIFEST, serve: ["${OUT}", "${DEVICES}"], resources: { memBytes: 2 ** 28, maxDevices } };
  return candidateFiles("plain", {
    "stack.json": JSON.stringify(manifest),
    "build.sh": '#!/bin/sh\ncp serve.sh "$2"\nchmod +x "$2"\n',
    "serve.sh": serve,
  });
}

const answered = (id: string) => fleet.results.find((r) => r.jobId === id);
const granted = (id: string) => fleet.leases.filter((l) => l.jobId === id);

/** Builds it, and publishes a check of it on so many devices. */
const check = async (files: Map<string, Uint8Array>, deviceCount: number): Promise<Job> => (await built(files))(deviceCount);

/** Builds it; answers what publishes a check. */
async function built(files: Map<string, Uint8Array>): Promise<(deviceCount: number) => Promise<Job>> {
  const { id, spec: ordered } = await fleet.build(POOL, files);
  await fleet.until("it is built", () => answered(id) !== undefined, 60_000);
  const outcome = answered(id)?.outcome;
  if (outcome?.status !== "built" || ordered.kind !== "build") throw new Error(JSON.stringify(outcome));
  const { treeDigest, tree, provenance } = ordered;
  const of = { treeDigest, tree, buildDigest: outcome.buildDigest, provenance };
  const spec: Job["spec"] = { kind: "check", stack: of, model, level: "screen", accuracy: "exact" };
  return (deviceCount) => fleet.publish(POOL, spec, deviceCount > 1 ? { deviceCount } : {});
}

/** The server is up, as far as it goes. */
const atWork = async (job: Job): Promise<void> =>
  fleet.until("it is at work", () => fleet.progress.some((p) => p.jobId === job.id && p.leaseToken === granted(job.id).at(-1)?.token));

const free = (): string[] =>
  fleet.fleet.scheduler
    .idle(Date.now())
    .map(({ id }) => id)
    .filter((id) => devices.includes(id));

describe.skipIf(!namespaces)("an agent with two GPUs", () => {
  it("serves on both at once: the stack sees both and no third, a job for one waits and is told why, and both are free again", async () => {
    expect(devices).toHaveLength(2);
    const [long, short] = [await built(stack(4)), await built(stack(0))];
    const gang = await long(2);
    await atWork(gang);
    const single = await short(1);
    const why = fleet.fleet.scheduler.explain(single.id, Date.now());
    expect(why.reason).toBe(`no device of pool ${POOL} is free: 2 suit, all are taken`);
    for (const id of devices) expect(why.devices.find((d) => d.id === id)?.doing).toContain(`runs job ${gang.id}`);
    await fleet.until("both are answered", () => answered(gang.id) !== undefined && answered(single.id) !== undefined, 60_000);
    const [both, one] = [answered(gang.id)!, answered(single.id)!];
    expect(both.devices).toEqual(devices);
    expect(both.deviceId).toBe(devices[0]);
    expect(one.devices).toBeUndefined();
    expect(one.startedAt).toBeGreaterThanOrEqual(both.endedAt);
    const said = (r: JobResult): string => (r.outcome.status === "failed" ? r.outcome.failure.logTail : JSON.stringify(r.outcome));
    expect(both.outcome).toMatchObject({ status: "failed", failure: { attribution: "candidate", code: "exited-at-start" } });
    expect(said(both)).toContain(`DEVICES=2 CUDA_VISIBLE_DEVICES=${UUIDS.join()} NCCL_SOCKET_IFNAME=lo\n`);
    expect(said(both)).toContain("\nnvidia-uvm nvidia0 nvidia1 nvidiactl\nshm 2097152\n");
    expect(said(one)).toContain(`DEVICES=1 CUDA_VISIBLE_DEVICES=${UUIDS[0]} NCCL_SOCKET_IFNAME=\n`);
    expect(said(one)).toContain("\nnvidia-uvm nvidia0 nvidiactl\nshm 65536\n");
    await fleet.until("both are free", () => free().length === 2);
  }, 120_000);

  it("a stack that says that it serves on fewer is not started on more; no agent has three, and the job that wants them is told so", async () => {
    const few = await check(stack(0, 1), 2);
    await fleet.until("it is answered", () => answered(few.id) !== undefined, 60_000);
    expect(answered(few.id)?.outcome).toMatchObject({ failure: { attribution: "candidate", code: "bad-manifest" } });
    const many = await check(stack(0), 3);
    const { reason } = fleet.fleet.scheduler.explain(many.id, Date.now());
    expect(reason).toBe(`no agent has 3 devices of pool ${POOL} that could take it together: the most is 2`);
    fleet.cancel(many.id, "nobody can take it");
  }, 120_000);

  it("killed in the middle, it loses both devices at once; what comes under the old token is evidence, and the next life takes both again", async () => {
    const job = await check(stack(3), 2);
    await atWork(job);
    const [lease] = granted(job.id);
    agent.kill("SIGKILL");
    await agent.exited;
    await fleet.until("the lease is lost", () => fleet.lost.some((l) => l.jobId === job.id));
    expect(fleet.fleet.leases.list()).toEqual([]);
    await start();
    await fleet.until("it is given out again", () => granted(job.id).length === 2, 30_000);
    const late = { v: 1, kind: "result", jobId: job.id, campaign: job.campaign, attempt: 1, agentId: "node" } as const;
    const unsigned = {
      ...late,
      ...{ deviceId: devices[0]!, devices, leaseToken: lease!.token, sandbox: "bubblewrap" as const, startedAt: 1, endedAt: 2, log: null },
      outcome: { status: "failed" as const, failure: { attribution: "candidate" as const, code: "late", message: "", logTail: "" } },
    };
    const subject = subjects.result("node", job.campaign);
    const result = { ...unsigned, sig: await fleet.sign("node", unsigned) };
    await fleet.broker.bus.js.publish(subject, encode(JobResult, result, subject));
    await fleet.until("the late one is recorded", () => fleet.results.some((r) => r.jobId === job.id && r.attempt === 1));
    expect(fleet.jobsLeft(POOL)).toBe(1);
    await fleet.until("the second attempt is answered", () => fleet.results.some((r) => r.jobId === job.id && r.attempt === 2), 60_000);
    expect(fleet.results.find((r) => r.jobId === job.id && r.attempt === 2)?.devices).toEqual(devices);
    expect(fleet.jobsLeft(POOL)).toBe(0);
    await fleet.until("both are free", () => free().length === 2);
  }, 120_000);

  it("a card that falls off in the middle ends the job, by its name, and the registry shows the agent with the other", async () => {
    const job = await check(stack(50), 2);
    await atWork(job);
    machine.lose();
    await fleet.until("it is answered", () => answered(job.id) !== undefined, 45_000);
    const failure = { attribution: "device", code: "device-lost", device: devices[1] };
    expect(answered(job.id)).toMatchObject({ devices, outcome: { status: "failed", failure } });
    await expect.poll(async () => (await fleet.registered("node"))?.devices.map((d) => d.id)).toEqual([devices[0]]);
  }, 120_000);
});
