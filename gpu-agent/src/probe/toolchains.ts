import { createHash } from "node:crypto";
import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseJson, type Tool } from "@vibeserve/shared";
import { hashFile } from "../artifact/file-digest.ts";
import type { VendorTools } from "../device/vendor-tool.ts";
import { z } from "zod";

interface Chain {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly version: RegExp;
  /** More programs that decide what comes out, from the folder of the first. */
  readonly parts: readonly string[];
}

const CHAINS: readonly Chain[] = [
  { name: "nvcc", command: "nvcc", args: ["--version"], version: /release [\d.]+, V([\d.]+)/, parts: ["ptxas", "../nvvm/bin/cicc"] },
  {
    name: "hipcc",
    command: "hipcc",
    args: ["--version"],
    version: /HIP version: (\S+)/,
    parts: ["../lib/llvm/bin/clang", "../llvm/bin/clang"],
  },
  { name: "clang", command: "clang", args: ["--version"], version: /clang version (\S+)/, parts: [] },
  { name: "metal", command: "xcrun", args: ["metal", "--version"], version: /version (\S+)/, parts: [] },
];

/** Of a Python what decides how fast a stack is or what it answers. Looked up without being imported: importing torch takes seconds and opens the device. */
const PACKAGES = `import hashlib, importlib.metadata as m, json, re
counts = ("torch", "triton", "pytorch-triton-rocm", "mlx", "mlx-metal", "numpy", "tokenizers", "transformers", "safetensors")
sha = lambda text: hashlib.sha256(text.encode()).hexdigest()
out, cuda = {}, {}
for d in m.distributions():
    try:
        n = re.sub("[-_.]+", "-", d.metadata["Name"] or "").lower()
    except Exception:
        continue  # One that is damaged must not hide the others.
    if n.startswith("nvidia-"):
        cuda.setdefault(n, d.version)
    if n in counts and n not in out:
        r = d.read_text("RECORD")
        out[n] = [n, d.version, sha(r) if r else None]
if cuda:
    runtime = [v for n, v in cuda.items() if n.startswith("nvidia-cuda-runtime")]
    out["cuda-packages"] = ["cuda-packages", runtime[0] if runtime else "?", sha(json.dumps(sorted(cuda.items())))]
print(json.dumps([out[n] for n in sorted(out)]))`;
const Packages = z.array(z.tuple([z.string(), z.string(), z.string().nullable()]));

/**
 * What compiles for an accelerator, with a digest over the programs (of a Python package: over its RECORD, which holds the digest of each of its files).
 * Looked for only where there is an accelerator: it costs seconds. What is not installed, or does not tell its version, is left out.
 */
export async function probeToolchains(tools: VendorTools): Promise<Tool[]> {
  const [chains, packages] = await Promise.all([Promise.all(CHAINS.map((c) => toolOf(tools, c))), pythonPackages(tools)]);
  return [...chains.filter((t) => t !== null), ...packages];
}

async function toolOf(tools: VendorTools, chain: Chain): Promise<Tool | null> {
  const path = tools.find(chain.command);
  if (path === null) return null;
  const run = await tools.run(chain.command, chain.args);
  const version = run.kind === "ok" ? chain.version.exec(run.text)?.[1] : undefined;
  if (run.kind !== "ok" || version === undefined) return null;
  const hash = createHash("sha256").update(`${chain.name}\n${run.text}\n`);
  const program = realpathSync(path);
  for (const file of [program, ...chain.parts.map((part) => join(dirname(program), part))])
    if (existsSync(file)) await hashFile(hash, file);
  return { name: chain.name, version, digest: hash.digest("hex") };
}

/** The packages of the agent's Python that count, PyPI's parts of CUDA as one (`cuda-packages`, in the version of its runtime); some 0.2 s. */
export async function pythonPackages(tools: VendorTools): Promise<Tool[]> {
  const run = await tools.run("python3", ["-c", PACKAGES]);
  const parsed = Packages.safeParse(run.kind === "ok" ? parseJson(run.text) : undefined);
  return parsed.success ? parsed.data.map(([name, version, digest]) => ({ name, version, digest })) : [];
}
