import { closeSync, openSync, readFileSync, readSync } from "node:fs";

/** What a compiled program or library says of itself in its first bytes; null for any other file. */
export function platformOf(file: string): string | null {
  const head = Buffer.alloc(20);
  const open = openSync(file, "r");
  try {
    if (readSync(open, head, 0, 20, 0) < 20) return null;
  } finally {
    closeSync(open);
  }
  // System V ABI, "ELF header": e_machine; Apple's mach-o/loader.h: mach_header_64.cputype.
  if (head.readUInt32BE(0) === 0x7f454c46) return `linux-${{ 62: "x64", 183: "arm64" }[head.readUInt16LE(18)] ?? head.readUInt16LE(18)}`;
  if (head.readUInt32LE(0) === 0xfeedfacf)
    return `darwin-${{ 0x1000007: "x64", 0x100000c: "arm64" }[head.readUInt32LE(4)] ?? head.readUInt32LE(4)}`;
  // Mach-O of several architectures at once, and Windows' programs.
  return head.readUInt32BE(0) === 0xcafebabe || head.toString("latin1", 0, 2) === "MZ" ? "another" : null;
}

/** Load commands of a Mach-O program that decide whether a Mac runs it: what it is linked with, the oldest macOS, and whether it is signed, without which arm64 kills it. */
export function machO(file: string): { libraries: string[]; oldestMacOs: number; signed: boolean } {
  const bytes = readFileSync(file);
  const found = { libraries: [] as string[], oldestMacOs: 0, signed: false };
  for (let n = bytes.readUInt32LE(16), at = 32; n > 0; n--, at += bytes.readUInt32LE(at + 4)) {
    const command = bytes.readUInt32LE(at);
    // LC_LOAD_DYLIB, its weak form, LC_BUILD_VERSION, LC_CODE_SIGNATURE.
    if (command === 0xc || command === 0x80000018)
      found.libraries.push(
        bytes.toString("latin1", at + bytes.readUInt32LE(at + 8), at + bytes.readUInt32LE(at + 4)).replace(/\0.*$/s, ""),
      );
    if (command === 0x32) found.oldestMacOs = bytes.readUInt16LE(at + 14) + bytes.readUInt8(at + 13) / 100;
    if (command === 0x1d) found.signed = true;
  }
  return found;
}
