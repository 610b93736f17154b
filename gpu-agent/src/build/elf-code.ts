/** What an ELF file lets a processor run, by its program headers, and how much of that stands in sections that a disassembler reads. */
export interface ElfCode {
  /** Bytes of the file in executable segments, in no section of code: up to some for alignment. */
  readonly hiddenBytes: number;
  /** A segment can be written and executed. */
  readonly writable: boolean;
}

const PT_LOAD = 1;
const [X, W] = [1, 2];
const SHF_EXECINSTR = 4;
const SHT_NOBITS = 8;

export const isElf = (head: Uint8Array): boolean => head[0] === 0x7f && head[1] === 0x45 && head[2] === 0x4c && head[3] === 0x46;

/** Of a 64-bit little-endian ELF file; null: it is another kind, or its headers lie outside of it. */
export function readElfCode(file: Uint8Array): ElfCode | null {
  if (!isElf(file) || file[4] !== 2 || file[5] !== 1 || file.length < 64) return null;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const u64 = (at: number): number => Number(view.getBigUint64(at, true));
  try {
    const table = (at: number, size: number, count: number): number[] => Array.from({ length: count }, (_, i) => at + i * size);
    const segments = table(u64(32), view.getUint16(54, true), view.getUint16(56, true))
      .filter((at) => view.getUint32(at, true) === PT_LOAD && (view.getUint32(at + 4, true) & X) !== 0)
      .map((at) => ({ flags: view.getUint32(at + 4, true), from: u64(at + 8), size: u64(at + 32) }));
    const sections = table(u64(40), view.getUint16(58, true), view.getUint16(60, true))
      .filter((at) => (u64(at + 8) & SHF_EXECINSTR) !== 0 && view.getUint32(at + 4, true) !== SHT_NOBITS)
      .map((at) => ({ from: u64(at + 24), size: u64(at + 32) }));
    const hidden = segments.map((s) => s.size - sections.reduce((sum, of) => sum + overlap(s, of), 0));
    return { hiddenBytes: hidden.reduce((a, b) => a + Math.max(0, b), 0), writable: segments.some((s) => (s.flags & W) !== 0) };
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

interface Span {
  readonly from: number;
  readonly size: number;
}
const overlap = (a: Span, b: Span): number => Math.max(0, Math.min(a.from + a.size, b.from + b.size) - Math.max(a.from, b.from));
