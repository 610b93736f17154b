/** A value of a GGUF key: strings, 32-bit integers, floats, and lists of strings or of 32-bit integers. */
export type GgufValue = string | number | { float: number } | string[] | number[];

export interface GgufTensor {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  /** GGUF's number of the format: 0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0. */
  readonly type: number;
  readonly data: Buffer;
  /** Whether it is written with one dimension. */
  readonly vector?: boolean;
}

function int(bytes: 4 | 8, value: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUInt32LE(value);
  return buffer;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([int(8, bytes.length), bytes]);
}

function float(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeFloatLE(value);
  return buffer;
}

function encodeValue(value: GgufValue): Buffer {
  if (typeof value === "string") return Buffer.concat([int(4, 8), text(value)]);
  if (typeof value === "number") return Buffer.concat([int(4, 4), int(4, value)]);
  if (!Array.isArray(value)) return Buffer.concat([int(4, 6), float(value.float)]);
  const items = value.map((item) => (typeof item === "string" ? text(item) : int(4, item)));
  return Buffer.concat([int(4, 9), int(4, typeof value[0] === "string" ? 8 : 4), int(8, value.length), ...items]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((32 - (bytes.length % 32)) % 32)]);
}

/** A GGUF v3 file. */
export function encodeGguf(keys: Record<string, GgufValue>, tensors: readonly GgufTensor[]): Buffer {
  const head = [Buffer.from("GGUF"), int(4, 3), int(8, tensors.length), int(8, Object.keys(keys).length)];
  for (const [key, value] of Object.entries(keys)) head.push(text(key), encodeValue(value));
  let offset = 0;
  for (const t of tensors) {
    const dims = t.vector === true ? [int(4, 1), int(8, t.cols)] : [int(4, 2), int(8, t.cols), int(8, t.rows)];
    head.push(text(t.name), ...dims, int(4, t.type), int(8, offset));
    offset += padded(t.data).length;
  }
  return Buffer.concat([padded(Buffer.concat(head)), ...tensors.map((t) => padded(t.data))]);
}
