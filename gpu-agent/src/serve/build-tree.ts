import { cp, mkdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Provenance, sha256, TreeHash } from "@vibeserve/shared";
import { z } from "zod";
import { probeAgent } from "../agent.ts";
import { BuildCache } from "../build/build-cache.ts";
import { buildStack, type Built } from "../build/build-stack.ts";
import { ConfigError, readConfig, type AgentConfig } from "../config.ts";
import { openDataFolder } from "../data-folder.ts";

/** What a command that works on a tree outside any campaign is told. tree: a tar. */
export const TreeOrder = z.object({ tree: z.string(), "tree-digest": TreeHash, provenance: Provenance });

const Order = TreeOrder.extend({ out: z.string() });

/** Builds a tree as a build job would: same sandbox, same cache. Throws JobError. */
export async function buildTree(
  config: AgentConfig,
  order: z.infer<typeof TreeOrder>,
  signal: AbortSignal,
): Promise<{ built: Built } & Pick<Awaited<ReturnType<typeof probeAgent>>, "sandbox" | "devices" | "compiler">> {
  const tar = await readFile(order.tree);
  // A data folder beside the agent's: an agent that starts sweeps up what bears its own tag, and this is not of its making.
  const data = await openDataFolder(`${resolve(config.data)}-serve`);
  const { sandbox, compiler, mask, devices } = await probeAgent(config, data);
  const never = (): never => {
    throw new Error("a tree outside a campaign stores nothing");
  };
  const built = await buildStack(
    {
      sandbox,
      compiler,
      mask,
      artifacts: { put: never, putFile: never, getFile: never, get: async () => tar },
      cache: new BuildCache(join(resolve(config.data), "builds")),
      signal,
      progress: (phase) => void process.stderr.write(`${phase}\n`),
    },
    { treeDigest: order["tree-digest"], tree: { digest: sha256(tar), bytes: tar.length }, provenance: order.provenance },
  );
  return { built, sandbox, devices, compiler };
}

/**
 * `gpu-agent build --tree FILE.tar --tree-digest HASH --provenance P --out DIR [agent options]`: builds the tree, or finds the very build that was measured here in
 * the cache, and copies it to DIR. Prints one JSON line `{kind: "built", buildDigest, cached, sandbox, compiler}`. Throws JobError and ConfigError.
 */
export async function buildInto(argv: readonly string[]): Promise<void> {
  const { order, rest } = readOrder("build", Order, argv);
  const { built, sandbox, compiler } = await buildTree(readConfig(rest).config, order, new AbortController().signal);
  await mkdir(order.out, { recursive: true });
  await cp(built.dir, order.out, { recursive: true });
  const { buildDigest, cached } = built;
  process.stdout.write(
    `${JSON.stringify({ v: 1, kind: "built", buildDigest, cached, sandbox: sandbox.kind, compiler: compiler ? `${compiler.name} ${compiler.version}` : "?" })}\n`,
  );
}

/** Splits a command's own options from the agent's. Throws ConfigError naming the one that is wrong. */
export function readOrder<T extends z.ZodObject>(
  command: string,
  schema: T,
  argv: readonly string[],
): { order: z.output<T>; rest: string[] } {
  const own = new Set(Object.keys(schema.shape));
  const mine: string[] = [];
  const rest: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? "";
    if (own.has(word.replace(/^--/, ""))) mine.push(word, argv[++i] ?? "");
    else rest.push(word);
  }
  const { values } = parseArgs({ args: mine, options: Object.fromEntries([...own].map((name) => [name, { type: "string" as const }])) });
  const parsed = schema.safeParse(values);
  if (parsed.success) return { order: parsed.data, rest };
  throw new ConfigError(parsed.error.issues.map((i) => `gpu-agent ${command}: --${i.path.join(".")}: ${i.message}`).join("\n"));
}
