import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { ConfigError, readConfig } from "../config.ts";
import { openDataFolder } from "../data-folder.ts";
import { bwrapPaths } from "../sandbox/bwrap-paths.ts";
import { findTool, probeSandbox } from "../sandbox/probe-sandbox.ts";
import { BuildCache } from "./build-cache.ts";
import { disassemble } from "./disassembly.ts";
import { isElf } from "./elf-code.ts";

/**
 * `gpu-agent disassemble --build DIGEST [agent options]`: which instructions a build of this agent holds, one JSON line `{kind: "disassembly", build, files}`.
 * Exit codes: 0, 1 it is not (or no longer) in this agent's folder, 2 bad arguments or no objdump.
 */
export async function disassembleBuild(argv: readonly string[]): Promise<number> {
  try {
    const at = argv.indexOf("--build");
    const { values } = parseArgs({ args: argv.slice(Math.max(0, at), at + 2), options: { build: { type: "string" } } });
    const { config } = readConfig(argv.filter((_, i) => at < 0 || i < at || i > at + 1));
    const objdump = findTool("objdump");
    if (objdump === null) throw new ConfigError("gpu-agent: objdump is not installed: install binutils");
    const build = await new BuildCache(join(resolve(config.data), "builds")).withDigest(values.build ?? "");
    if (build === null) {
      process.stderr.write(`gpu-agent: there is no build ${values.build ?? ""} in ${config.data}\n`);
      return 1;
    }
    const data = await openDataFolder(`${resolve(config.data)}-serve`);
    const sandbox = await probeSandbox({ bwrapPaths: bwrapPaths(config.bwrap, config.cache), unsafe: false, tag: data.tag });
    const files = [];
    for (const { path } of build.files) {
      const from = join(build.dir, path);
      if (isElf(await readFile(from)))
        files.push(await disassemble({ objdump, sandbox, signal: new AbortController().signal }, null, from, path));
    }
    process.stdout.write(`${JSON.stringify({ v: 1, kind: "disassembly", build: values.build, files })}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return error instanceof ConfigError ? 2 : 1;
  }
}
