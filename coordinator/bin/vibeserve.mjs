#!/usr/bin/env node
// `npx vibeserve <verb> …`. The sources are TypeScript for Node 24, which node_modules brings; under an older Node this hands over to it.
if (Number(process.versions.node.split(".")[0]) >= 24) {
  if (process.channel) {
    // Started by bootstrap.mjs: stop in good order when that is killed outright, rather than live on unseen.
    process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
    process.channel.unref();
  } else
    (await import("./bootstrap/npm-shell.mjs")).whenNpmsShellEnds(() => {
      // Number 0 tells it from a signal (stop-signal.ts). What listens to none ends of it.
      if (!process.emit("SIGTERM", "SIGTERM", 0)) process.kill(process.pid, "SIGTERM");
    });
  await import("../src/main.ts");
} else {
  const { main } = await import("./bootstrap/main.mjs");
  await main(process.argv.slice(2));
}
