// A candidate for tests: a server on a unix socket that tries what a hostile stack would try, and tells what came of it on GET /report.
import { spawn } from "node:child_process";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: { socket: { type: "string" }, mode: { type: "string", default: "plain" }, arg: { type: "string", default: "" } },
});
const report = { pid: process.pid, uid: process.getuid(), env: process.env };
const attempt = (f) => {
  try {
    return f();
  } catch (error) {
    return `refused: ${error.code ?? error.message}`;
  }
};
const dial = (options) =>
  new Promise((resolve) => {
    const socket = connect(options, () => resolve("connected"));
    socket.setTimeout(2000, () => resolve("refused: timeout"));
    socket.on("error", (error) => resolve(`refused: ${error.code}`));
  });

switch (values.mode) {
  case "plain":
    break;
  case "exit":
    console.error("\u001b[31mfatal:\u001b[0m no such \u0007kernel");
    process.exit(3);
    break;
  case "hang":
    setInterval(() => undefined, 1000);
    break;
  case "network":
    report.tcp = await dial({ host: "127.0.0.1", port: Number(values.arg) });
    break;
  case "read":
    report.read = Object.fromEntries(values.arg.split(",").map((p) => [p, attempt(() => readFileSync(p, "utf8"))]));
    report.root = readdirSync("/");
    report.processes = readdirSync("/proc").filter((n) => /^\d+$/.test(n)).length;
    break;
  case "write":
    report.write = Object.fromEntries(values.arg.split(",").map((p) => [p, attempt(() => (writeFileSync(p, "x"), "written"))]));
    break;
  case "daemon":
    // The classic double fork: the middle process ends, the last one has no parent, session or group in common with us.
    for (let i = 0; i < 3; i++)
      spawn("/bin/sh", ["-c", "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' >/dev/null 2>&1 &"], {
        detached: true,
        stdio: "ignore",
        env: values.arg === "keep-environment" ? process.env : {},
      }).unref();
    break;
  case "flood": {
    const line = `${"\u001b[2J".repeat(20)}${"x".repeat(4000)}\n`;
    for (let i = 0; i < 25_000; i++) if (!process.stdout.write(line)) await new Promise((r) => process.stdout.once("drain", r));
    console.log("flooded");
    break;
  }
  case "forks": {
    let started = 0;
    report.forks = await new Promise((resolve) => {
      const one = () => {
        const child = spawn("/bin/sleep", ["100"], { stdio: "ignore" });
        child.once("error", (error) => resolve(`refused after ${started}: ${error.code}`));
        child.once("spawn", () => (++started < 1000 ? one() : resolve(`started ${started}`)));
      };
      one();
    });
    break;
  }
  case "memory":
    break;
  default:
    throw new Error(`unknown mode ${values.mode}`);
}

const hold = [];
if (values.mode !== "hang")
  createServer((req, res) => {
    if (req.url === "/memory") {
      for (;;) hold.push(Buffer.alloc(64 * 2 ** 20, 1));
    }
    if (req.url === "/die") process.exit(7);
    if (req.url === "/spin") {
      for (const until = Date.now() + 300; Date.now() < until;);
    }
    report.exists = existsSync(values.arg);
    res.end(JSON.stringify(report));
  }).listen(values.socket);
