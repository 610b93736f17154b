import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Digest, ModelRef, Provenance, sha256, TreeHash } from "@vibeserve/shared";
import { z } from "zod";
import { probeAgent } from "../agent.ts";
import { BuildCache } from "../build/build-cache.ts";
import { buildStack } from "../build/build-stack.ts";
import { ConfigError, readConfig } from "../config.ts";
import { openDataFolder } from "../data-folder.ts";
import { failureOf } from "../worker/job-error.ts";
import { verifiedWeights } from "../worker/weights.ts";
import { withDevice } from "../sandbox/device-nodes.ts";
import { startStack } from "./start-stack.ts";
import { forwardTcp } from "./tcp-forwarder.ts";

/** Loading 100 MB of weights takes well under a second; a model of gigabytes on a slow disk minutes. */
const HEALTH_LIMIT_MS = 300_000;

const Order = z.object({
  tree: z.string(),
  "tree-digest": TreeHash,
  "model-file": z.string(),
  "model-sha256": Digest,
  provenance: Provenance,
  port: z.coerce.number().int().min(0).max(65535),
});

/**
 * `gpu-agent serve --tree FILE.tar --tree-digest HASH --model-file NAME --model-sha256 HEX --provenance P --port N [agent options]`: builds the tree as a
 * build job would (same sandbox, same cache), starts it as a bench job would, and forwards a loopback TCP port to it until SIGTERM. Prints one JSON line
 * `{kind: "serving", url, sandbox}` once it answers. Exit codes: 0 stopped, 1 the stack ended or failed, 2 bad arguments or a port that is taken.
 */
export async function serveTree(argv: readonly string[]): Promise<number> {
  try {
    return await serve(argv);
  } catch (error) {
    const { code, message, logTail } = failureOf(error);
    const taken = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
    process.stderr.write(
      `gpu-agent: ${error instanceof ConfigError ? message : `${code}: ${message}`}\n${logTail === "" ? "" : `${logTail}\n`}`,
    );
    return error instanceof ConfigError || taken ? 2 : 1;
  }
}

async function serve(argv: readonly string[]): Promise<number> {
  const { order, rest } = readOrder(argv);
  const { config } = readConfig(rest);
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => stop.abort());
  const tar = await readFile(order.tree);
  const model = await verifiedWeights(
    config.cache,
    ModelRef.parse({ name: order["model-file"], file: order["model-file"], sha256: order["model-sha256"] }),
  );
  // A data folder beside the agent's: an agent that starts sweeps up what bears its own tag, and this is not of its making.
  const data = await openDataFolder(`${resolve(config.data)}-serve`);
  const { sandbox, compiler, device } = await probeAgent(config, data);
  const digest = sha256(tar);
  const ref = { digest, bytes: tar.length };
  const never = (): never => {
    throw new Error("serving stores nothing");
  };
  const built = await buildStack(
    {
      sandbox,
      compiler,
      artifacts: { put: never, putFile: never, getFile: never, get: async () => tar },
      cache: new BuildCache(join(resolve(config.data), "builds")),
      signal: stop.signal,
      progress: (phase) => void process.stderr.write(`${phase}\n`),
    },
    { treeDigest: order["tree-digest"], tree: ref, provenance: order.provenance },
  );
  const stack = await startStack(
    { sandbox: withDevice(sandbox, device) },
    {
      buildDir: built.dir,
      modelPath: model,
      cpus: device.cpus,
      healthTimeoutMs: HEALTH_LIMIT_MS,
      provenance: order.provenance,
      signal: stop.signal,
    },
  );
  try {
    const forwarder = await forwardTcp(order.port, stack.socketPath);
    try {
      const url = `http://127.0.0.1:${forwarder.port}`;
      process.stdout.write(`${JSON.stringify({ v: 1, kind: "serving", url, sandbox: stack.sandbox, cached: built.cached })}\n`);
      const stopped = new Promise<null>((done) => stop.signal.addEventListener("abort", () => done(null), { once: true }));
      const ended = await Promise.race([stack.exited, stopped]);
      if (ended === null) return 0;
      process.stderr.write(`gpu-agent: the stack ended with ${ended.code ?? ended.signal ?? "?"}\n${stack.logTail()}\n`);
      return 1;
    } finally {
      await forwarder.close();
    }
  } finally {
    await stack.stop();
  }
}

function readOrder(argv: readonly string[]): { order: z.infer<typeof Order>; rest: string[] } {
  const own = new Set(Object.keys(Order.shape));
  const mine: string[] = [];
  const rest: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? "";
    if (own.has(word.replace(/^--/, ""))) mine.push(word, argv[++i] ?? "");
    else rest.push(word);
  }
  const { values } = parseArgs({ args: mine, options: Object.fromEntries([...own].map((name) => [name, { type: "string" as const }])) });
  const parsed = Order.safeParse(values);
  if (parsed.success) return { order: parsed.data, rest };
  throw new ConfigError(parsed.error.issues.map((i) => `gpu-agent serve: --${i.path.join(".")}: ${i.message}`).join("\n"));
}
