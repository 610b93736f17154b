import { flushCompileCache } from "node:module";
import { optimize } from "./process/optimize.ts";
import { forgetLean, startLean } from "./start/config.ts";
import { withoutLocales } from "./start/without-locales.ts";

startLean(process.argv[2]?.startsWith("-") ?? true);
const argv = process.argv.slice(2);
if (process.channel) {
  // Started by another process of the product: when that is killed outright the channel closes, and this one drains instead of living on unseen.
  process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
  process.channel.unref();
}
const [command] = argv;
if (command === "serve" || command === "build") {
  const { treeCommand } = await import("./serve/serve-tree.ts");
  process.exit(await treeCommand(command, argv.slice(1)));
}
if (argv[0] === "disassemble") {
  const { disassembleBuild } = await import("./build/disassemble-build.ts");
  process.exit(await disassembleBuild(argv.slice(1)));
}
if (argv[0] === "hold-machine") {
  const { holdMachine } = await import("./machine/hold-machine.ts");
  process.exit(await holdMachine(argv.slice(1)));
}
optimize(false);
const all = withoutLocales();
const { runAgent } = await import("./run-agent.ts");
all();
forgetLean();
await runAgent(argv);
flushCompileCache();
