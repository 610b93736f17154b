import { enableCompileCache, flushCompileCache } from "node:module";
import { join } from "node:path";

// Compiled code of an earlier start: a quarter of a second less to start and a smaller idle process, since the TypeScript stripper is not loaded. It must be
// on before the modules are loaded, hence the import below.
enableCompileCache(join(import.meta.dirname, "../../node_modules/.cache/node-compile"));

if (process.channel && process.listenerCount("disconnect") === 0) {
  // Started by another process of the product: when that is killed outright the channel closes, and this one stops in good order. (bin/vibeserve.mjs may have
  // seen to it already; two signals would mean "now".)
  process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
  process.channel.unref();
}

const { run } = await import("./cli/program.ts");
const { packageVersion } = await import("./version.ts");
const code = await run(process.argv.slice(2), packageVersion());
flushCompileCache();
// A pipe takes 64 KiB; what its reader has not taken yet is not to be lost. One that reads no more (`| head`) is not waited for.
await Promise.all(
  [process.stdout, process.stderr].map((stream) => new Promise<void>((done) => stream.on("error", done).write("", () => done()))),
);
// Timers, connections and children of a finished command don't keep it alive.
process.exit(code);
