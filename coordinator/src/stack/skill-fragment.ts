import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The worked piece of code in a skill's body: a fenced block whose info string is `<language> fragment`. */
export interface Fragment {
  language: string;
  code: string;
}

/** How a fragment of each language is read: the file is the last argument. Only syntax and types; nothing is linked or run. */
const COMPILERS: Readonly<Record<string, { file: string; name: string; args: readonly string[] } | null>> = {
  cpp: { file: "fragment.cpp", name: "g++", args: ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"] },
  python: { file: "fragment.py", name: "python3", args: ["-c", "import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])"] },
  cuda: { file: "fragment.cu", name: "nvcc", args: ["-std=c++17", "-arch=sm_90a", "--ptx", "-o", "/dev/null"] },
  hip: { file: "fragment.hip", name: "hipcc", args: ["-std=c++17", "--offload-arch=gfx942", "-fsyntax-only"] },
  metal: null,
  yaml: null,
  sh: { file: "fragment.sh", name: "sh", args: ["-n"] },
};
const LIMIT_MS = 60_000;

/** "ok", "uncompiled" where this machine has no compiler for it, or what the compiler said. `find` answers an executable's path. */
export async function checkFragment(
  { language, code }: Fragment,
  tools: { find: (name: string) => Promise<string | undefined> },
): Promise<string> {
  const compiler = COMPILERS[language];
  if (compiler === undefined) return `language "${language}" is not one of ${Object.keys(COMPILERS).join(", ")}`;
  const path = compiler && (await tools.find(compiler.name));
  if (!path) return "uncompiled";
  const dir = await mkdtemp(join(tmpdir(), "vs-fragment-"));
  try {
    const file = join(dir, compiler.file);
    await writeFile(file, code);
    return await new Promise((resolve) => {
      execFile(path, [...compiler.args, file], { timeout: LIMIT_MS, maxBuffer: 1 << 20 }, (error, stdout, stderr) => {
        resolve(error ? `${stdout}${stderr}`.replaceAll(dir, "").trim() || error.message : "ok");
      });
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}
