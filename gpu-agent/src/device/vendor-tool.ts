import { spawn } from "node:child_process";
import { globSync } from "node:fs";
import { basename, join } from "node:path";
import { killGroup } from "../process/kill-group.ts";
import { cleanText } from "../process/log-ring.ts";
import { driverLibraries } from "./nvidia-library.ts";
import { findTool, isExecutable } from "../sandbox/probe-sandbox.ts";

/** How a run of a vendor's tool ended. "missing": not installed here, which is no fault. "failed": installed, and it does not work; `why` is for people. */
export type ToolRun =
  { readonly kind: "missing" } | { readonly kind: "failed"; readonly why: string } | { readonly kind: "ok"; readonly text: string };

/** Folders of vendors' packages that are not the system's own. */
const VENDOR_FOLDERS = ["/opt/rocm/bin", "/usr/local/cuda/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib"];
/** Nsight Compute's own program, newest version first: what CUDA's folder has under its name is a script that looks for it. */
const NSIGHT = `/opt/nvidia/nsight-compute/*/target/linux-*-${process.arch === "arm64" ? "a64" : "x64"}`;
const nsight = (name: string): string | undefined =>
  name === "ncu"
    ? globSync(`${NSIGHT}/ncu`)
        .filter(isExecutable)
        .sort((a, b) => b.localeCompare(a, "en", { numeric: true }))[0]
    : undefined;
/** A tool that starts a sleeping driver may take seconds; one that hangs on a lost device never ends. */
const TIMEOUT_MS = 10_000;
/** `nvidia-smi -q` prints 10 KB a device, 1.2 MB with 16 devices' supported clocks. */
const MAX_BYTES = 4 * 2 ** 20;

export interface VendorTools {
  find(name: string): string | null;
  /** Runs a tool to its end; never rejects. Its output is bounded, and after `timeoutMs` (10 s) it is given up even if it can't be killed. */
  run(name: string, args: readonly string[], timeoutMs?: number): Promise<ToolRun>;
}

/** `folder`: where tools are looked for before the fixed folders. `python`: the interpreter in place of the system's. PATH is never asked. */
export function vendorTools(folder: string | null = null, python: string | null = null): VendorTools {
  const find = (name: string): string | null => {
    if (name === "python3" && python !== null) return python;
    const own = folder === null ? null : join(folder, name);
    if (own !== null && isExecutable(own)) return own;
    return findTool(name) ?? nsight(name) ?? VENDOR_FOLDERS.map((dir) => `${dir}/${name}`).find(isExecutable) ?? null;
  };
  return {
    find,
    run: async (name, args, timeoutMs = TIMEOUT_MS) => {
      const path = find(name);
      return path === null ? { kind: "missing" } : runToEnd(path, args, timeoutMs);
    },
  };
}

function runToEnd(path: string, args: readonly string[], timeoutMs: number): Promise<ToolRun> {
  const name = basename(path);
  return new Promise((resolve) => {
    const child = spawn(path, args, {
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
      cwd: "/",
      env: {
        PATH: "/usr/bin:/bin:/usr/sbin:/sbin",
        LC_ALL: "C",
        HOME: "/nonexistent",
        ...(name.startsWith("nvidia-") ? driverLibraries() : {}),
      },
    });
    const out = { stdout: "", stderr: "", bytes: 0 };
    const end = (run: ToolRun): void => {
      clearTimeout(timer);
      killGroup(child.pid);
      // A process in an uninterruptible sleep survives the KILL: it must not keep the agent from ending.
      child.unref();
      child.stdout.destroy();
      child.stderr.destroy();
      resolve(run);
    };
    const timer = setTimeout(() => end({ kind: "failed", why: `${name} gave no answer in ${timeoutMs / 1000} s` }), timeoutMs);
    const keep = (stream: "stdout" | "stderr") => (chunk: Buffer) => {
      out.bytes += chunk.length;
      out[stream] += chunk.toString("utf8");
      if (out.bytes > MAX_BYTES) end({ kind: "failed", why: `${name} printed more than ${MAX_BYTES / 2 ** 20} MiB` });
    };
    child.stdout.on("data", keep("stdout"));
    child.stderr.on("data", keep("stderr"));
    child.once("error", (error) => end({ kind: "failed", why: `${name} did not start: ${error.message}` }));
    child.once("close", (code, signal) => {
      // Tools print their errors on either stream, nvidia-smi on stdout.
      if (code === 0) end({ kind: "ok", text: out.stdout });
      else end({ kind: "failed", why: `${name} ended with ${code ?? signal ?? "?"}: ${firstWords(out.stdout + out.stderr)}` });
    });
  });
}

/** What a tool said, for a label or a log: one line, no control characters. */
export function firstWords(text: string): string {
  return cleanText(text).replace(/\s+/g, " ").trim().slice(0, 200) || "it printed nothing";
}
