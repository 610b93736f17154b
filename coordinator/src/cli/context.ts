import { existsSync } from "node:fs";
import { join } from "node:path";
import { ClientContext, issuesOf } from "@vibeserve/shared";
import { ApiClient } from "../api/client.ts";
import { commandLine } from "../command-line.ts";
import type { Settings } from "../config.ts";
import { readJson } from "../process/read-json.ts";
import { CliError, EXIT } from "./exit.ts";

/** Where the context of a coordinator that runs in this data folder is. */
export const localContext = (settings: Pick<Settings, "data">): string => join(settings.data, "client.json");

/** Which coordinator a verb talks to: a named one, or the one of the data folder. Throws CliError: 2 for a bad context, 3 where there is none. */
export function loadContext(settings: Settings, name: string | undefined): ClientContext {
  if (name !== undefined && !/^[A-Za-z0-9_.-]+$/.test(name)) throw new CliError(EXIT.badInput, `--context ${name}: not a name`);
  const path = name === undefined ? localContext(settings) : join(settings.contexts, `${name}.json`);
  if (!existsSync(path))
    throw name === undefined
      ? new CliError(
          EXIT.unreachable,
          `no coordinator runs in ${settings.data}; start one with "${commandLine("up")}" or "${commandLine("start")}"`,
        )
      : new CliError(EXIT.badInput, `no context "${name}": ${path} does not exist; copy the coordinator's client.json there`);
  const parsed = ClientContext.safeParse(readJson(path));
  if (!parsed.success) throw new CliError(EXIT.badInput, `${path} is not a client context: ${issuesOf(parsed.error)}`);
  return parsed.data;
}

/** A connection to that coordinator; patienceMs as of ApiClient.connect. Throws CliError or UnreachableError. */
export async function connectClient(settings: Settings, name: string | undefined, patienceMs = 0): Promise<ApiClient> {
  return ApiClient.connect(loadContext(settings, name), patienceMs);
}
