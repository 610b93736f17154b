import { constants } from "node:fs";
import { chmod, copyFile, open, type FileHandle } from "node:fs/promises";
import { createRng, type Rng } from "@vibeserve/shared";
import { readGguf, type GgufTensor } from "../tokenizer/index.ts";

export interface MutateOptions {
  readonly from: string;
  /** Written anew; readable by all, since the candidate that is served with it is another user. */
  readonly to: string;
  readonly seed: string;
}

/** Factors on the float32 norm weights, [1 / SPREAD, SPREAD]: enough to change what the model says, too little to make it babble. */
export const SPREAD = 1.15;
/** Part of the rows of a feed-forward matrix that trade places. */
export const MOVED_ROWS = 0.04;
const F32 = 0;
/** Bytes of a block of 32 values (1 of F32 and F16), by ggml type. */
const BLOCKS: ReadonlyMap<number, { values: number; bytes: number }> = new Map([
  [0, { values: 1, bytes: 4 }],
  [1, { values: 1, bytes: 2 }],
  [2, { values: 32, bytes: 18 }],
  [3, { values: 32, bytes: 20 }],
  [8, { values: 32, bytes: 34 }],
]);

/**
 * Writes a copy of a GGUF whose model says something else: each norm weight of the layers rescaled, some rows of each `ffn_up` permuted. Formats, shapes
 * and text are untouched, so every honest stack serves it; outputs that were canned, or computed from anything but the file's weights, do not follow.
 * Deterministic in (file, seed).
 */
export async function mutateGguf({ from, to, seed }: MutateOptions): Promise<void> {
  const { tensors } = readGguf(from);
  const rng = createRng(`mutate ${seed}`);
  await copyFile(from, to, constants.COPYFILE_FICLONE);
  await chmod(to, 0o644);
  await using file = await open(to, "r+");
  for (const tensor of tensors) {
    if (!tensor.name.startsWith("blk.")) continue;
    if (tensor.name.endsWith("_norm.weight") && tensor.type === F32) await rescale(file, tensor, rng);
    if (tensor.name.endsWith(".ffn_up.weight")) await permuteRows(file, tensor, rng);
  }
  await file.sync();
}

async function rescale(file: FileHandle, { shape, offset }: GgufTensor, rng: Rng): Promise<void> {
  const bytes = await readAt(file, offset, shape.reduce((a, b) => a * b, 1) * 4);
  rescaleFloats(bytes, rng);
  await writeAt(file, bytes, offset);
}

/** Multiplies each float32 by a factor of its own. */
export function rescaleFloats(bytes: Buffer, rng: Rng): void {
  for (let at = 0; at < bytes.length; at += 4) bytes.writeFloatLE(bytes.readFloatLE(at) * SPREAD ** (2 * rng.next() - 1), at);
}

async function permuteRows(file: FileHandle, { name, shape, type, offset }: GgufTensor, rng: Rng): Promise<void> {
  const block = BLOCKS.get(type);
  const [cols, rows] = shape;
  if (!block || cols === undefined || rows === undefined) throw new Error(`tensor ${name} has a type or shape that can't be permuted`);
  const rowBytes = (cols / block.values) * block.bytes;
  const bytes = await readAt(file, offset, rows * rowBytes);
  swapRows(bytes, rows, rowBytes, Math.ceil((rows * MOVED_ROWS) / 2), rng);
  await writeAt(file, bytes, offset);
}

/** Lets `pairs` of rows, drawn at random, trade places. */
export function swapRows(bytes: Buffer, rows: number, rowBytes: number, pairs: number, rng: Rng): void {
  for (let i = 0; i < pairs; i++) {
    const [a, b] = [rng.int(rows) * rowBytes, rng.int(rows) * rowBytes];
    const row = Buffer.from(bytes.subarray(a, a + rowBytes));
    bytes.copy(bytes, a, b, b + rowBytes);
    row.copy(bytes, b);
  }
}

/** Exactly so many bytes. */
export async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await file.read(bytes, 0, length, offset);
  if (bytesRead !== length) throw new Error("the weights are cut short");
  return bytes;
}

export async function writeAt(file: FileHandle, bytes: Buffer, offset: number): Promise<void> {
  const { bytesWritten } = await file.write(bytes, 0, bytes.length, offset);
  if (bytesWritten !== bytes.length) throw new Error("the mutated weights could not be written; is the disk full?");
}
