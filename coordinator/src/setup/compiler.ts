import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { AssetContext } from "./asset-context.ts";
import { runTool } from "./run-tool.ts";
import { withScratchFolder } from "./scratch-folder.ts";
import { SetupError } from "./setup-error.ts";
import { findProgram } from "./system-tool.ts";
import { ensureZig } from "./zig.ts";

/** Enough of C++20, its library and threads that a compiler which passes builds the stacks; with the warnings that they are built with. */
export const CXX20 = `#include <bit>
#include <concepts>
#include <span>
#include <thread>
#include <vector>
template <std::integral T> T sum(std::span<const T> values) { T total = 0; for (T value : values) total += value; return total; }
int main() {
  std::vector<int> values{1, 2, 3};
  int total = 0;
  std::thread worker([&] { total = sum<int>(values); });
  worker.join();
  return total == 6 && std::bit_width(8u) == 4 ? 0 : 1;
}
`;

/** zig compiles its C++ library at the first use: 2 min on two idle cores. */
const probeDeadlineMs = 10 * 60_000;

/**
 * A command (argv prefix) that compiles C++20: `$CXX`, c++, g++ or clang++, whichever first builds a probe that runs; else the
 * ziglang wheel's, fetched now. Rejects with a SetupError that names what each one lacked.
 */
export async function ensureCompiler(context: AssetContext, cxx: string | undefined): Promise<{ value: string[]; note?: string }> {
  const wanted = cxx?.split(/\s+/);
  const refused: string[] = [];
  for (const [program = "", ...rest] of [...(wanted === undefined ? [] : [wanted]), ["c++"], ["g++"], ["clang++"]]) {
    const path = await findProgram(program, context.signal);
    const failure = path === undefined ? "not installed" : await whyNot([path, ...rest], context);
    if (path !== undefined && failure === undefined) {
      const note = `installed here: ${[path, ...rest].join(" ")}`;
      const ignored = wanted !== undefined && wanted[0] !== program ? `CXX is not used: ${refused[0] ?? ""}; ` : "";
      return { value: [path, ...rest], note: ignored + note };
    }
    refused.push(`${[program, ...rest].join(" ")}: ${failure ?? "not installed"}`);
  }
  return lastResort(context, refused.join("; "));
}

async function lastResort(context: AssetContext, refused: string): Promise<{ value: string[]; note?: string }> {
  context.log(
    `set-up: C++ compiler … none installed compiles C++20 (${refused}): fetching ziglang (100 MB; its first compilation takes 2 min)`,
  );
  const install = "or install a compiler (Debian: `apt-get install g++`, macOS: `xcode-select --install`)";
  try {
    const zig = await ensureZig(context);
    const failure = await whyNot([zig], context);
    if (failure !== undefined)
      throw new SetupError("C++ compiler", `ziglang's does not build a C++20 program: ${failure}`, "check free memory and disk");
    return { value: [zig], note: "ziglang, the compiler of last resort" };
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    throw new SetupError("C++ compiler", `none installed compiles C++20 (${refused}), and ${error.detail}`, `${error.fix}; ${install}`, {
      cause: error,
    });
  }
}

async function whyNot(cxx: string[], context: AssetContext): Promise<string | undefined> {
  return withScratchFolder(context.cacheDir, "compiler-probe", async (folder) => {
    const source = join(folder, "probe.cpp");
    const binary = join(folder, "probe");
    await writeFile(source, CXX20);
    const flags = ["-std=c++20", "-O3", "-Wall", "-Wextra", "-Werror", "-pthread", source, "-o", binary];
    const [program = "", ...rest] = cxx;
    const built = await runTool([program, ...rest, ...flags], { signal: context.signal, deadlineMs: probeDeadlineMs, cwd: folder });
    if (built.kind === "missing") return "not installed";
    if (built.kind === "killed") return built.reason;
    if (built.code !== 0) return firstError(built.text);
    const ran = await runTool([binary], { signal: context.signal });
    return ran.kind === "ended" && ran.code === 0 ? undefined : "what it builds does not run here";
  });
}

function firstError(text: string): string {
  const lines = text.trim().split("\n");
  return (lines.find((line) => /error/i.test(line)) ?? lines.at(-1) ?? "no message").trim().slice(0, 200);
}
