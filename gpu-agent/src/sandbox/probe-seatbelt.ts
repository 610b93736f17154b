import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import type { Platform } from "../platform.ts";
import { APPLE } from "./device-nodes.ts";
import { outcomeOf, type SandboxOptions } from "./probe-sandbox.ts";
import { SERVE_LIMITS } from "./rlimits.ts";
import type { Sandbox } from "./sandbox.ts";
import { spawnSandboxed } from "./spawn.ts";
import { tempFolder } from "../process/temp-folder.ts";

/** Says what it could do: $1 is a folder that it must not see, $2 one that it may write to, $3 a port of loopback. */
const TRIAL = `
cat "$1/secret" 2>/dev/null
(: > "$1/file") 2>/dev/null && echo "it wrote outside its folders"
(: > "$2/file") 2>/dev/null || echo "it could not write to its folder"
(: > "$TMPDIR/file") 2>/dev/null || echo "it had no temporary folder"
curl -s -m 2 "http://127.0.0.1:$3/" > /dev/null 2>&1
echo end`;

/**
 * macOS's sandbox where it really works: a command is run in it that tries what it must not, once as on the processors and once with what the GPU needs. Else "none", with
 * the reason: sandbox-exec is marked as deprecated, and does nothing within another sandbox.
 */
export async function probeSeatbelt(options: SandboxOptions, platform: Platform): Promise<Sandbox> {
  const none: Sandbox = {
    kind: "none",
    reason: "switched off",
    bwrap: null,
    drop: "userns",
    tools: { prlimit: null, setpriv: null, taskset: null },
    unsafe: options.unsafe,
    tag: options.tag ?? "agent",
    platform,
  };
  if (options.forceNone === true) return none;
  const plain: Sandbox = { ...none, kind: "seatbelt", reason: "" };
  for (const [where, sandbox] of Object.entries({ "": plain, " with the GPU": { ...plain, device: APPLE } })) {
    const failure = await trial(sandbox).catch((error: unknown) => (error instanceof Error ? error.message : String(error)));
    if (failure !== null) return { ...none, reason: `${String(platform.sandboxExec)}${where}: ${failure}` };
  }
  return plain;
}

async function trial(sandbox: Sandbox): Promise<string | null> {
  await using temporary = await tempFolder("vs-trial-");
  const folder = temporary.path;
  const [outside, own] = [join(folder, "outside"), join(folder, "own")];
  let knocks = 0;
  const listener = createServer((socket) => {
    knocks++;
    socket.destroy();
  });
  try {
    for (const dir of [outside, own]) await mkdir(dir);
    await writeFile(join(outside, "secret"), "it read outside its folders\n");
    await new Promise<void>((resolve, reject) => listener.once("error", reject).listen(0, "127.0.0.1", () => resolve()));
    const { port } = listener.address() as AddressInfo;
    const tree = await spawnSandboxed(sandbox, {
      argv: ["/bin/sh", "-c", TRIAL, "trial", outside, own, String(port)],
      ...{ env: {}, mounts: [{ from: own, mode: "rw" }], cwd: own, cpus: null, provenance: "shipped" },
      limits: { ...SERVE_LIMITS, processes: 64 },
    });
    try {
      const { text, failure } = await outcomeOf(tree);
      if (failure !== null) return failure;
      if (text !== "end") return text.split("\n")[0] || "it said nothing";
      if (!existsSync(join(own, "file"))) return "what it wrote is not there";
      return knocks > 0 ? "it reached the network" : null;
    } finally {
      await tree.stop(0);
    }
  } finally {
    listener.close();
  }
}
