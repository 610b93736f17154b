import { closeSync, fstatSync, openSync, readSync } from "node:fs";

export interface GgufTensor {
  readonly name: string;
  /** Fastest dimension first, as in the file. */
  readonly shape: readonly number[];
  /** ggml type number: 0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0. */
  readonly type: number;
  /** Byte offset from the start of the file. */
  readonly offset: number;
}
export type GgufValue = string | number | boolean | readonly string[] | readonly number[];
export interface Gguf {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: readonly GgufTensor[];
}

const CHUNK_BYTES = 4 << 20;
/** Longest string and longest array that a header may hold: a broken file must not make us allocate gigabytes. */
const MAX_STRING_BYTES = 1 << 20;
const MAX_ARRAY = 1 << 22;

/** Reads a file front to back through a window, so that 100 MB of tensors behind the header are never read. */
class Cursor {
  #window: Buffer = Buffer.alloc(0);
  #start = 0;
  #at = 0;
  readonly #fd: number;
  readonly #size: number;
  constructor(fd: number) {
    this.#fd = fd;
    this.#size = fstatSync(fd).size;
  }
  get offset(): number {
    return this.#start + this.#at;
  }
  take(bytes: number): Buffer {
    if (this.#at + bytes > this.#window.length) {
      const from = this.offset;
      if (from + bytes > this.#size) throw new Error("the GGUF header is cut short");
      const window = Buffer.alloc(Math.min(Math.max(bytes, CHUNK_BYTES), this.#size - from));
      const got = readSync(this.#fd, window, 0, window.length, from);
      if (got < bytes) throw new Error("the GGUF file changed while it was read");
      this.#window = window.subarray(0, got);
      this.#start = from;
      this.#at = 0;
    }
    const out = this.#window.subarray(this.#at, this.#at + bytes);
    this.#at += bytes;
    return out;
  }
  u32 = (): number => this.take(4).readUInt32LE();
  u64 = (): number => {
    const n = Number(this.take(8).readBigUInt64LE());
    if (!Number.isSafeInteger(n)) throw new Error("the GGUF header holds an impossible count");
    return n;
  };
  text(): string {
    const n = this.u64();
    if (n > MAX_STRING_BYTES) throw new Error(`the GGUF header holds a string of ${n} bytes`);
    return this.take(n).toString("utf8");
  }
  number(type: number): number {
    switch (type) {
      case 0:
      case 7:
        return this.take(1).readUInt8();
      case 1:
        return this.take(1).readInt8();
      case 2:
        return this.take(2).readUInt16LE();
      case 3:
        return this.take(2).readInt16LE();
      case 4:
        return this.u32();
      case 5:
        return this.take(4).readInt32LE();
      case 6:
        return this.take(4).readFloatLE();
      case 10:
        return this.u64();
      case 11:
        return Number(this.take(8).readBigInt64LE());
      case 12:
        return this.take(8).readDoubleLE();
      default:
        throw new Error(`the GGUF header holds a value of unknown type ${type}`);
    }
  }
  value(type: number): GgufValue {
    if (type === 8) return this.text();
    if (type === 7) return this.number(7) !== 0;
    if (type !== 9) return this.number(type);
    const element = this.u32();
    const n = this.u64();
    if (n > MAX_ARRAY) throw new Error(`the GGUF header holds an array of ${n} elements`);
    if (element === 8) return Array.from({ length: n }, () => this.text());
    return Array.from({ length: n }, () => this.number(element));
  }
}

/** Metadata and tensor table of a GGUF v2/v3 file. Throws with a plain message on anything else. Reads the header only. */
export function readGguf(path: string): Gguf {
  const fd = openSync(path, "r");
  try {
    const c = new Cursor(fd);
    if (c.take(4).toString("latin1") !== "GGUF") throw new Error(`${path} is not a GGUF file`);
    const version = c.u32();
    if (version !== 2 && version !== 3) throw new Error(`${path} is GGUF version ${version}; 2 and 3 are known`);
    const tensorCount = c.u64();
    const keyCount = c.u64();
    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < keyCount; i++) {
      const key = c.text();
      metadata.set(key, c.value(c.u32()));
    }
    const tensors: GgufTensor[] = [];
    for (let i = 0; i < tensorCount; i++) {
      const name = c.text();
      const dims = c.u32();
      if (dims > 4) throw new Error(`tensor ${name} has ${dims} dimensions`);
      const shape = Array.from({ length: dims }, () => c.u64());
      tensors.push({ name, shape, type: c.u32(), offset: c.u64() });
    }
    const align = metadata.get("general.alignment");
    const unit = typeof align === "number" ? align : 32;
    const start = Math.ceil(c.offset / unit) * unit;
    return { metadata, tensors: tensors.map((t) => ({ ...t, offset: t.offset + start })) };
  } finally {
    closeSync(fd);
  }
}
