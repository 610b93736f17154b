import { open } from "node:fs/promises";
import { join } from "node:path";
import type { IsaLevel } from "../probe/isa-mask.ts";
import { placeMounts } from "../sandbox/placement.ts";
import { BUILD_LIMITS } from "../sandbox/rlimits.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { spawnSandboxed } from "../sandbox/spawn.ts";
import { JobError } from "../worker/job-error.ts";
import type { OutputFile } from "./build-cache.ts";
import { isElf, readElfCode } from "./elf-code.ts";
import { encodingOf, isBeyond } from "./instruction.ts";
import { tempFolder } from "../process/temp-folder.ts";

/** Which instructions one file's code holds. */
export interface Disassembled {
  readonly path: string;
  readonly instructions: number;
  /** Instructions with a VEX or EVEX encoding, and with an operand that is a 256- or 512-bit register or a tile. */
  readonly vex: number;
  readonly evex: number;
  readonly ymm: number;
  readonly zmm: number;
  readonly tiles: number;
  /** Beyond the level that was asked about. */
  readonly beyond: number;
  /** The first of them: function and instruction. */
  readonly first: string | null;
}

export interface DisassemblyDeps {
  readonly objdump: string;
  readonly sandbox: Sandbox;
  readonly signal: AbortSignal;
}

/** A megabyte of code takes half a second; a stack has a quarter of one. */
const LIMIT_MS = 60_000;
/** Padding among the sections of one segment. */
const ALIGNMENT_BYTES = 512;
const INSTRUCTION = /^\s*[0-9a-f]+:\t([0-9a-f]{2}(?: [0-9a-f]{2})*)\s*\t(.*)$/;
const FUNCTION = /^[0-9a-f]+ <(.*)>:$/;

/** Throws JobError candidate `beyond-isa` where a file of the build (in `dir`) holds code that a pool of this level must not run, or that can't be looked at. */
export async function refuseBeyond(deps: DisassemblyDeps, level: IsaLevel, dir: string, files: readonly OutputFile[]): Promise<void> {
  for (const { path, bytes } of files) {
    const from = join(dir, path);
    const file = await readWhole(from, bytes);
    if (!isElf(file)) continue;
    const refuse = (why: string): never => {
      throw new JobError("candidate", "beyond-isa", `${path}: ${why}; this pool is masked to ${level}: build with \${CXX} as it is given`);
    };
    const code = readElfCode(file);
    if (code === null) return refuse("its ELF headers can't be read");
    if (code.writable) return refuse("a segment of it can be written and executed");
    if (code.hiddenBytes > ALIGNMENT_BYTES) return refuse(`${code.hiddenBytes} bytes of its code are in no section of code`);
    const found = await disassemble(deps, level, from, path);
    if (found.beyond > 0) return refuse(`${found.beyond} of ${found.instructions} instructions are beyond it, first ${found.first ?? ""}`);
  }
}

/** Runs objdump in the sandbox, since the file is a stranger's, and reads what it prints as it comes: no more than a line is kept. */
export async function disassemble(deps: DisassemblyDeps, level: IsaLevel | null, from: string, path: string): Promise<Disassembled> {
  await using temporary = await tempFolder("vs-objdump-");
  const scratch = temporary.path;
  const count = { instructions: 0, vex: 0, evex: 0, ymm: 0, zmm: 0, tiles: 0, beyond: 0, first: null as string | null };
  let inside = "";
  let rest = "";
  const read = (line: string): void => {
    const heading = FUNCTION.exec(line);
    if (heading) inside = heading[1] ?? "";
    const found = INSTRUCTION.exec(line);
    if (!found) return;
    const [, hex = "", text = ""] = found;
    const encoding = encodingOf(hex.split(" ").map((b) => parseInt(b, 16)));
    count.instructions++;
    if (encoding === "vex") count.vex++;
    if (encoding === "evex") count.evex++;
    if (text.includes("%ymm")) count.ymm++;
    if (text.includes("%zmm")) count.zmm++;
    if (text.includes("%tmm")) count.tiles++;
    if (level === null || !isBeyond(level, encoding, text)) return;
    count.beyond++;
    count.first ??= `${text.trim().slice(0, 120)} in ${inside.slice(0, 120)}`;
  };
  const decoder = new TextDecoder("latin1");
  const placement = await placeMounts(deps.sandbox, [{ from, to: "/checked/file", mode: "ro" }], "shipped", scratch);
  const tree = await spawnSandboxed(deps.sandbox, {
    argv: [deps.objdump, "-d", "-w", "--", placement.path(from)],
    env: {},
    mounts: placement.mounts,
    cwd: "/",
    cpus: null,
    limits: BUILD_LIMITS,
    provenance: "shipped",
    onStdout: (chunk) => {
      const lines = (rest + decoder.decode(chunk)).split("\n");
      rest = (lines.pop() ?? "").slice(0, 4096);
      for (const line of lines) read(line);
    },
  });
  const exit = await tree.untilEnded(AbortSignal.any([deps.signal, AbortSignal.timeout(LIMIT_MS)]));
  deps.signal.throwIfAborted();
  read(rest);
  if (exit.code !== 0 || exit.signal !== null)
    throw new JobError("candidate", "beyond-isa", `${path}: it can't be disassembled within ${LIMIT_MS / 1000} s`, tree.stderr.tail());
  return { path, ...count };
}

async function readWhole(path: string, bytes: number): Promise<Uint8Array> {
  await using file = await open(path, "r");
  const head = new Uint8Array(4);
  await file.read(head, 0, 4, 0);
  if (!isElf(head)) return head;
  const all = new Uint8Array(bytes);
  await file.read(all, 0, bytes, 0);
  return all;
}
