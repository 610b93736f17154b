import { spawn } from "node:child_process";
import { delimiter, join } from "node:path";
import { BootstrapError } from "./bootstrap-error.mjs";

/** How often a running npm is reported, so that a slow network does not look like a hang. */
const heartbeatMs = 10_000;

/** What npm's error codes and words mean for a user. First match wins. */
const causes = [
  [
    /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT|network/i,
    "no network: the npm registry cannot be reached",
    "connect this machine to the network, or set npm's `registry` or `proxy`; what is installed once is reused without a network",
  ],
  [
    /ENOSPC|EDQUOT/,
    "the disk is full",
    "free at least 1 GB here and in npm's cache (`npm cache verify` tells where it is), then start again",
  ],
  [
    /EINTEGRITY/,
    "a downloaded package does not have the digest that package-lock.json pins",
    "run `npm cache verify` and start again; if it persists, your registry serves altered packages",
  ],
  [
    /EUSAGE|in sync/,
    "package.json and package-lock.json do not agree",
    "restore both with `git checkout -- package.json package-lock.json`",
  ],
  [/EACCES|EPERM|EROFS/, "a folder cannot be written", "make this folder and npm's cache writable for your user; do not use sudo"],
  [/CERT|SSL|self.signed/i, "the registry's certificate is not trusted here", "set npm's `cafile` to your organisation's certificate"],
];

/**
 * Runs npm and waits for it; throws BootstrapError with the cause and its fix if it fails.
 * node_modules/.bin is taken off PATH: npm's install scripts must not run on a Node that npm is just replacing.
 */
export async function npm(root, step, args) {
  const path = (process.env.PATH ?? "").split(delimiter).filter((folder) => folder !== join(root, "node_modules/.bin"));
  const started = Date.now();
  const seconds = () => `${((Date.now() - started) / 1000).toFixed(1)} s`;
  const heartbeat = setInterval(() => console.error(`set-up: ${step} … still going (${seconds()})`), heartbeatMs);
  try {
    const output = await finished(
      spawn("npm", args, { cwd: root, env: { ...process.env, PATH: path.join(delimiter) }, stdio: ["ignore", "pipe", "pipe"] }),
      step,
    );
    if (output.failure !== undefined) throw explain(step, output);
  } finally {
    clearInterval(heartbeat);
  }
  console.error(`set-up: ${step} … ok (${seconds()})`);
}

function finished(child, step) {
  return new Promise((resolve, reject) => {
    let text = "";
    const keep = (chunk) => (text = (text + chunk).slice(-20_000));
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    child.on("error", (error) =>
      reject(
        error.code === "ENOENT"
          ? new BootstrapError(
              step,
              "there is no `npm` on PATH",
              "install npm (Debian: `apt-get install npm`; it also comes with Node from nodejs.org)",
            )
          : new BootstrapError(step, `npm could not be started: ${error.message}`, "see that message"),
      ),
    );
    // A stop that reaches this process alone (not a terminal's Ctrl-C, which npm sees as well) must not leave npm at work unseen.
    const stop = (signal) => {
      child.kill(signal);
      reject(new BootstrapError(step, `interrupted by ${signal}`, "start again; nothing is lost"));
    };
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
    for (const signal of signals) process.once(signal, stop);
    child.on("close", (code, signal) => {
      for (const name of signals) process.removeListener(name, stop);
      resolve({ failure: code === 0 ? undefined : (signal ?? `exit code ${code}`), text });
    });
  });
}

function explain(step, { failure, text }) {
  const cause = causes.find(([pattern]) => pattern.test(text));
  if (cause !== undefined) return new BootstrapError(step, `${cause[1]}${quote(text, cause[0])}`, cause[2]);
  return new BootstrapError(step, `npm ended with ${failure}\n${text.trim().split("\n").slice(-12).join("\n")}`, "see npm's message above");
}

function quote(text, pattern) {
  const line = text.split("\n").find((candidate) => pattern.test(candidate));
  return line === undefined ? "" : ` (npm says: ${line.replace(/^npm (error|ERR!) ?/, "").trim()})`;
}
