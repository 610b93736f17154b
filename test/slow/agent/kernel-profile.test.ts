import { execFileSync } from "node:child_process";
import { chmodSync, existsSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { createRng } from "@vibeserve/shared";
import { deviceAdapters } from "../../../gpu-agent/src/device/adapter.ts";
import { vendorTools } from "../../../gpu-agent/src/device/vendor-tool.ts";
import type { DrawPrompt } from "../../../gpu-agent/src/bench/workload.ts";
import { readTopology } from "../../../gpu-agent/src/probe/cpu-topology.ts";
import { profileStack } from "../../../gpu-agent/src/profile/profile-stack.ts";
import { withDevices } from "../../../gpu-agent/src/sandbox/device-nodes.ts";
import { findTool } from "../../../gpu-agent/src/sandbox/probe-sandbox.ts";
import { startServer } from "../../../gpu-agent/src/serve/start-server.ts";
import { loadTokenizer, type Tokenizer } from "../../../gpu-agent/src/tokenizer/index.ts";
import { JobError } from "../../../gpu-agent/src/worker/job-error.ts";
import { bubblewrap } from "../../agent/kit.ts";
import { builtPythonStack, pythonWith } from "../../kit/python-stack.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { writeTinyCheckpoint } from "../../kit/tiny-checkpoint.ts";

const adapters = deviceAdapters(vendorTools());
const { devices } = await adapters.nvidia.probe({ agentId: "here", topology: readTopology() });
const [device] = devices;
const python = pythonWith("torch", "numpy", "tokenizers");

/** Letters and blanks until the chat has its length: any checkpoint's tokenizer can say them. */
const drawer =
  (tokenizer: Tokenizer): DrawPrompt =>
  (rng, tokens) => {
    const words = createRng(String(rng.int(2 ** 30)));
    for (let content = ""; ; content += words.int(4) === 0 ? " " : String.fromCharCode(97 + words.int(26))) {
      const messages = [{ role: "user" as const, content }];
      const ids = tokenizer.encodeChat(messages);
      if (ids.length === tokens) return { messages, ids };
      if (ids.length > tokens + 8) content = "";
    }
  };

/** `$VIBESERVE_TEST_CHECKPOINT`: the folder of a checkpoint in place of the tiny one. */
it.skipIf(device === undefined || python === null)(
  "kernels of stacks/torch on this NVIDIA device, by the Nsight Compute that is installed here; or why it may not look at them",
  async () => {
    if (device === undefined || python === null) return;
    using dir = tempDir("kernel-profile");
    const model = process.env["VIBESERVE_TEST_CHECKPOINT"] ?? join(dir.path, "tiny");
    if (!existsSync(model)) writeTinyCheckpoint(model);
    await builtPythonStack("torch", python, dir.path);
    chmodSync(dir.path, 0o755);
    const about = execFileSync(python.command, ["-c", "import sys; print(sys.executable); print(sys.prefix)"], { encoding: "utf8" });
    const [program = "", prefix = ""] = about.trim().split("\n");
    const shown = [prefix, ...python.path.split(":"), dir.path, model].filter((path) => existsSync(path) && !path.startsWith("/usr"));
    const box = withDevices(await bubblewrap(), [device]);
    const tokenizer = loadTokenizer(model);
    const profiling = profileStack(
      {
        arrival: { process: "closed", concurrency: 8 },
        prompt: { distribution: "fixed", tokens: 64 },
        output: { distribution: "fixed", tokens: 32 },
        requests: 8,
      },
      {
        start: ({ under, onStopped }) =>
          startServer(
            { sandbox: box },
            {
              argv: [...(under?.argv ?? []), program, join(dir.path, "stack"), "--socket", "${SOCKET}", "--model", model],
              env: { PYTHONPATH: python.path },
              mounts: [...[...new Set(shown)].map((from) => ({ from, mode: "ro" as const })), ...(under?.mounts ?? [])],
              counters: under?.counters === true,
              cpus: device.cpus,
              healthTimeoutMs: 300_000,
              provenance: "shipped",
              limits: { memBytes: 64 * 2 ** 30, processes: 4096 },
              ...(onStopped ? { onStopped } : {}),
            },
          ),
        tools: { drawPrompt: drawer(tokenizer), decode: (ids) => tokenizer.decode(ids) },
        ...{ sandbox: box, device, buildDir: dir.path, workDir: dir.path, signal: new AbortController().signal },
        progress: (phase) => process.stderr.write(`${phase}\n`),
        ...{ ncu: adapters.nvidia.kernelProfiler(), perf: findTool("perf"), valgrind: null },
      },
    );
    const profile = await profiling.catch((error: unknown) => {
      if (!(error instanceof JobError)) throw error;
      return error;
    });
    process.stdout.write(`${profile instanceof JobError ? profile.message : JSON.stringify(profile, null, 1)}\n`);
    if (profile instanceof JobError) {
      expect(profile).toMatchObject({ attribution: "device", code: "no-profiler" });
      expect(profile.message).toMatch(/not permitted|is not installed/);
      return;
    }
    if (profile.source !== "ncu") {
      expect(profile.note).toMatch(/none of the device's kernels: (not permitted|Nsight Compute \(ncu\) is not installed)/);
      return;
    }
    expect(profile.samples).toBeGreaterThan(20);
    expect(profile.regions[0]?.name).toMatch(/ \[\d+ x \d+\.\d us, memory \d+ %, compute \d+ %, warps \d+ %, \d+ registers\]$/);
    expect(profile.regions.reduce((sum, r) => sum + r.share, 0)).toBeGreaterThan(0.9);
  },
);
