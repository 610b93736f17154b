import { existsSync } from "node:fs";
import type { Settings } from "../config.ts";
import { ensureAssets, readSetupConfig, SetupError, type Assets } from "../setup/index.ts";
import { CliError, EXIT } from "./exit.ts";
import { openOutput, type Output } from "./output.ts";

/** Finds or fetches what this machine needs, one line a step. Throws CliError naming the step and its fix. */
export async function prepare(settings: Settings, output: Output, signal: AbortSignal): Promise<Assets> {
  try {
    const { cxx, bundle } = readSetupConfig();
    return await ensureAssets({ cacheDir: settings.cache, log: (line) => output.say(line), signal, cxx, bundle });
  } catch (error) {
    if (error instanceof SetupError) throw new CliError(EXIT.badInput, error.report());
    throw error;
  }
}

/** The broker alone; only where it is not installed yet is anything fetched. */
export const natsServerOf = async (settings: Settings, signal: AbortSignal): Promise<string> =>
  existsSync(settings.natsServer) ? settings.natsServer : (await prepare(settings, openOutput(true), signal)).natsServer;
