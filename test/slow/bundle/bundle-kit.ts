import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";

const MAIN = join(import.meta.dirname, "../../../coordinator/src/main.ts");
export const PATH = "/usr/local/bin:/usr/bin:/bin";

export interface Ended {
  code: number | null;
  text: string;
}
export function run(file: string, args: readonly string[], env?: NodeJS.ProcessEnv): Ended {
  const { status, stdout, stderr } = spawnSync(file, args, { encoding: "utf8", maxBuffer: 2 ** 26, ...(env ? { env } : {}) });
  return { code: status, text: `${stdout}${stderr}` };
}

/** The checkout's CLI, with its data in a folder. */
export const vibeserveIn =
  (folder: string) =>
  (...args: string[]): Ended =>
    run(process.execPath, [MAIN, ...args, "--data", join(folder, "data")]);

/** The core's archive in a folder that `bundle --out` wrote. */
export const coreIn = (out: string): string => join(out, readdirSync(out).find((name) => name.endsWith("-core.tar.gz")) ?? "none");

/** Shell: with the commands that install.sh linked in $W/bin, a coordinator, an agent that joins it, and both stopped; ends with 0 when all that was seen. */
export const JOINS = `
  $W/bin/vibeserve up --data $W/up >$W/up.log 2>&1 & up=$!
  until grep -q 'coordinator ready' $W/up.log; do kill -0 $up || exit 3; sleep 0.2; done
  $W/bin/vibeserve agent --data $W/up >$W/agent.log 2>&1 & agent=$!
  until $W/bin/vibeserve status --data $W/up | tee $W/status.log | grep -q cpu-; do kill -0 $agent || exit 4; sleep 0.5; done
  cat $W/status.log
  kill $agent; wait $agent; kill $up; wait $up; cat $W/up.log $W/agent.log`;
