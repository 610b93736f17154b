import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ApiClient } from "../api/client.ts";
import { aloneIn } from "../config.ts";
import { Coordinator } from "../coordinator.ts";
import { smoke, type SmokeStep } from "../operate/smoke.ts";
import { connectClient } from "./context.ts";
import { parseDuration } from "./duration.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

export interface SmokeOptions {
  own?: boolean;
  seed: string;
  limit: string;
}

/** Is the installation whole? Throws CliError 1 naming the first step that failed, 2 for bad options, 3 where no coordinator answers. */
export async function smokeTest(invocation: Invocation, options: SmokeOptions, stop: AbortSignal): Promise<void> {
  const limitS = parseDuration(options.limit);
  if (limitS === null) throw new CliError(EXIT.badInput, `--limit ${options.limit}: not a time such as 60s or 2m`);
  if (options.own && invocation.context !== undefined)
    throw new CliError(EXIT.badInput, "--own starts a coordinator; --context names another: give one");
  const { output } = invocation;
  await using own = options.own ? await ownCoordinator(invocation) : null;
  await using client = own ? await own.client() : await connectClient(invocation.settings, invocation.context);
  const signal = AbortSignal.any([stop, AbortSignal.timeout(limitS * 1000)]);
  output.say("smoke: everything here is SIMULATED but the coordinator");
  const result = await smoke(client, options.seed, signal, (step) => output.say(line(step)));
  output.answer({ v: 1, kind: "smoke", simulated: true, ...result }, result.ok ? "smoke: ok" : "");
  const failed = result.steps.find((s) => !s.ok);
  if (failed) throw new CliError(EXIT.negative, `smoke: ${failed.name}: ${failed.saw}`);
}

const line = ({ name, ok, saw, ms }: SmokeStep): string =>
  `${ok ? "ok  " : "FAIL"}  ${name.padEnd(8)}  ${saw} (${(ms / 1000).toFixed(1)} s)`;

/** A coordinator of its own in a folder that goes with it, on this machine alone, whatever the settings say of others. */
async function ownCoordinator({ settings, version }: Invocation): Promise<AsyncDisposable & { client(): Promise<ApiClient> }> {
  const data = mkdtempSync(join(tmpdir(), "vibeserve-smoke-"));
  const remove = () => rmSync(data, { recursive: true, force: true, maxRetries: 3 });
  try {
    const coordinator = await Coordinator.start({ settings: aloneIn(data, settings), version, log: () => undefined });
    const { servers, broker } = coordinator;
    return {
      client: () =>
        ApiClient.connect({ v: 1, kind: "client", servers, seed: broker.seeds.client, pid: process.pid, startedAt: Date.now() }),
      [Symbol.asyncDispose]: async () => {
        await coordinator[Symbol.asyncDispose]();
        remove();
      },
    };
  } catch (error) {
    remove();
    throw error;
  }
}
