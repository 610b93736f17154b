import { ApiClient } from "../api/client.ts";
import { aloneIn } from "../config.ts";
import { Coordinator } from "../coordinator.ts";
import { smoke, type SmokeStep } from "../operate/smoke.ts";
import { YOUNG_POD_MS } from "../process/backoff.ts";
import { temporaryFolder } from "../process/temporary-folder.ts";
import { connectClient } from "./context.ts";
import { durationOf } from "./duration.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { stopSignal } from "./stop-signal.ts";

/** Is the installation whole? Throws CliError 1 naming the first step that failed, 2 for bad options, 3 where no coordinator answers. */
export async function smokeTest(invocation: Invocation, options: { own?: boolean; seed: string; limit: string }): Promise<void> {
  const stop = stopSignal();
  const limitS = durationOf("--limit", options.limit);
  if (options.own && invocation.context !== undefined)
    throw new CliError(EXIT.badInput, "--own starts a coordinator; --context names another: give one");
  const { output } = invocation;
  await using own = options.own ? await ownCoordinator(invocation) : null;
  // By a named context it may be `helm test`'s pod, which is seconds old.
  const patienceMs = invocation.context === undefined ? 0 : YOUNG_POD_MS;
  await using client = own ? await own.client() : await connectClient(invocation.settings, invocation.context, patienceMs);
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
  await using own = new AsyncDisposableStack();
  const data = own.use(temporaryFolder("smoke")).path;
  const { servers, broker } = own.use(await Coordinator.start({ settings: aloneIn(data, settings), version, log: () => undefined }));
  const open = own.move();
  return {
    client: () => ApiClient.connect({ v: 1, kind: "client", servers, seed: broker.seeds.client, pid: process.pid, startedAt: Date.now() }),
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}
