// The MCP server that a coding CLI starts inside the agent sandbox: carries bytes between its stdin and stdout and the coordinator's socket, where the
// protocol is spoken. It reads nothing of what passes.
import { createConnection } from "node:net";

const coordinator = createConnection(process.argv[2]);
process.stdin.pipe(coordinator);
coordinator.pipe(process.stdout);
coordinator.once("error", (error) => {
  process.stderr.write(`no connection to the coordinator: ${error.message}\n`);
  process.exit(1);
});
coordinator.once("close", () => process.exit(0));
