import { Digest, MAX_DEVICES, ModelRef } from "@vibeserve/shared";
import { z } from "zod";
import { ConfigError, readConfig } from "../config.ts";
import { failureOf } from "../worker/job-error.ts";
import { verifiedWeights } from "../worker/weights.ts";
import { buildInto, buildTree, readOrder, TreeOrder } from "./build-tree.ts";
import { leadOf } from "../device/together.ts";
import { withDevices } from "../sandbox/device-nodes.ts";
import { startStack } from "./start-stack.ts";
import { forwardTcp } from "./tcp-forwarder.ts";

/** Loading 100 MB of weights takes well under a second; a model of gigabytes on a slow disk minutes. */
const HEALTH_LIMIT_MS = 300_000;

const Order = TreeOrder.extend({
  "model-file": z.string(),
  "model-sha256": Digest,
  "model-name": z.string(),
  port: z.coerce.number().int().min(0).max(65535),
  /** The agent's first ones. */
  devices: z.coerce.number().int().min(1).max(MAX_DEVICES).default(1),
});

/**
 * `gpu-agent serve --tree FILE.tar --tree-digest HASH --model-file FILE --model-sha256 HEX --model-name NAME --provenance P --port N [--devices N]
 * [agent options]`: builds the tree as a build job would (same sandbox, same cache), starts it as a bench job would, and forwards a loopback TCP port to it
 * until SIGTERM. Prints one JSON line `{kind: "serving", url, sandbox}` once it answers. `gpu-agent build`: see buildInto. Exit codes: 0 stopped or built, 1 the stack ended or failed, 2 bad
 * arguments or a port that is taken.
 */
export async function treeCommand(command: "serve" | "build", argv: readonly string[]): Promise<number> {
  try {
    if (command === "serve") return await serve(argv);
    await buildInto(argv);
    return 0;
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
  const { order, rest } = readOrder("serve", Order, argv);
  const { config } = readConfig(rest);
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => stop.abort());
  const model = await verifiedWeights(
    config.cache,
    ModelRef.parse({ name: order["model-name"], file: order["model-file"], sha256: order["model-sha256"] }),
  );
  const { built, sandbox, devices } = await buildTree(config, order, stop.signal);
  const [first, ...others] = devices.slice(0, order.devices);
  if (!first || others.length < order.devices - 1)
    throw new ConfigError(`gpu-agent serve: --devices ${order.devices}: this machine has ${devices.length}`);
  const stack = await startStack(
    { sandbox: withDevices(sandbox, [first, ...others]) },
    {
      buildDir: built.dir,
      modelPath: model,
      // Clients ask for the target's model; a name may hold what no path may.
      modelName: order["model-name"].replace(/[^\w.-]+/g, "-").replace(/^[.-]+/, "") || "model",
      cpus: leadOf([first, ...others]).cpus,
      devices: order.devices,
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
