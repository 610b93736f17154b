import { enableCompileCache, flushCompileCache } from "node:module";
import { join } from "node:path";

// Compiled code of an earlier start: 0.3 s less to start, and 30 MB less while idle, since the TypeScript stripper is not loaded. Where the folder can't be
// written nothing is lost but that. It must be on before the daemon's modules are loaded, hence the import below.
enableCompileCache(join(import.meta.dirname, "../../node_modules/.cache/node-compile"));
const { runAgent } = await import("./run-agent.ts");
await runAgent(process.argv.slice(2));
flushCompileCache();
