import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
/** Its source, relative to this file, so that it is found wherever the product lies. */
const SCRIPT = join(import.meta.dirname, "../../reference/hf_reference.py");
const NEEDED = ["torch", "transformers", "safetensors"];

/**
 * How the reference of a Hugging Face checkpoint is started: transformers' own model in a process of its own, nothing of stacks/. Throws Error that says what to
 * install where this Python lacks a part; nothing is imported to find out.
 */
export async function hfReference(python: string): Promise<{ executable: string; script: readonly string[] }> {
  const ask = `import importlib.util as u; print(",".join(m for m in ${JSON.stringify(NEEDED)} if u.find_spec(m) is None))`;
  const { stdout } = await run(python, ["-c", ask], { timeout: 30_000 });
  const missing = stdout.trim();
  if (missing !== "") throw new Error(`${python} lacks ${missing}: install them there, or name a Python that has them with --python`);
  return { executable: python, script: [SCRIPT] };
}
