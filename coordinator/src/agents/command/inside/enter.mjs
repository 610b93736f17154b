// Runs inside the agent sandbox as its first process: writes the CLI's own settings into its private home, carries a port on loopback to the proxy's
// socket (the sandbox has no other network), then runs the CLI and ends as it ends. Everything it knows is in plan.json, which holds no secret.
import { spawn } from "node:child_process";
import { mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { createConnection, createServer } from "node:net";
import { dirname } from "node:path";

const plan = JSON.parse(readFileSync(process.argv[2], "utf8"));

for (const [path, text] of Object.entries(plan.files)) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

const forwarder = createServer({ allowHalfOpen: true }, (client) => {
  const proxy = createConnection({ path: plan.socket, allowHalfOpen: true });
  client.pipe(proxy).pipe(client);
  client.on("error", () => proxy.destroy());
  proxy.on("error", () => client.destroy());
  client.on("close", () => proxy.destroy());
});

function end(code, reason) {
  if (reason) process.stderr.write(`${reason}\n`);
  process.exit(code);
}

forwarder.once("error", (error) => end(126, `the forwarder could not listen: ${error.message}`));
forwarder.listen(plan.port, "127.0.0.1", () => {
  const [program, ...args] = plan.argv;
  const cli = spawn(program, args, { cwd: plan.cwd, stdio: [openSync(plan.stdin, "r"), "inherit", "inherit"] });
  cli.once("error", (error) => end(127, `${program} could not be started: ${error.message}`));
  cli.once("exit", (code, signal) => end(code ?? 128 + (constants.signals[signal] ?? 0)));
});
