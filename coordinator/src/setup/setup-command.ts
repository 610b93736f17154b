import { readSetupConfig } from "./config.ts";
import { ensureAssets } from "./ensure-assets.ts";
import { SetupError } from "./setup-error.ts";

/** `node coordinator/src/setup/setup-command.ts`: the set-up alone, as `npm test` needs it. Exit code 0, or 2 with the reason and its fix. */
try {
  const config = readSetupConfig();
  await ensureAssets({ ...config, log: (line) => void process.stderr.write(`${line}\n`) });
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`${error.report()}\n`);
  process.exitCode = 2;
}
