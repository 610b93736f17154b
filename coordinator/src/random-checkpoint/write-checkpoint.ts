import { createHash } from "node:crypto";
import { chmodSync, closeSync, fchmodSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { folderDigest, ModelShape } from "@vibeserve/shared";
import { Draws } from "./draws.ts";
import { tensors, type Tensor } from "./tensors.ts";
import { BOS_ID, EOS_ID, tokenizerFiles } from "./tokenizer-files.ts";

/** Bytes that are written at once. */
const CHUNK = 8 << 20;

/**
 * Writes a Hugging Face checkpoint of the given config.json's shape with random weights as bfloat16; answers its folder digest. The same bytes for the same
 * shape and seed on every machine. What lay at `folder` is replaced once all is written. Throws RangeError where the shape is too narrow, ZodError where it is none.
 */
export function writeRandomCheckpoint(folder: string, stated: Record<string, unknown>, seed: number): string {
  const config = { ...stated, torch_dtype: "bfloat16", bos_token_id: BOS_ID, eos_token_id: EOS_ID };
  const shape = ModelShape.parse(config);
  const draft = `${folder}.${process.pid}`;
  rmSync(draft, { recursive: true, force: true });
  mkdirSync(draft, { recursive: true });
  // Candidates run as another user, whatever this one's umask is.
  chmodSync(draft, 0o755);
  try {
    const files = Object.entries({ "config.json": config, ...tokenizerFiles(shape.vocab) }).map(
      ([name, value]) => [name, write(join(draft, name), [Buffer.from(JSON.stringify(value))])] as const,
    );
    const weights = write(join(draft, "model.safetensors"), safetensors(tensors(shape, new Draws(seed))));
    rmSync(folder, { recursive: true, force: true });
    renameSync(draft, folder);
    return folderDigest([...files, ["model.safetensors", weights]]);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

/** Writes a file piece by piece; answers its sha256. */
function write(path: string, pieces: Iterable<Uint8Array>): string {
  const digest = createHash("sha256");
  const fd = openSync(path, "wx");
  try {
    fchmodSync(fd, 0o644);
    for (const piece of pieces) {
      digest.update(piece);
      for (let at = 0; at < piece.length;) at += writeSync(fd, piece, at);
    }
  } finally {
    closeSync(fd);
  }
  return digest.digest("hex");
}

/** 8 bytes length, a JSON header padded to 8, the tensors' bytes, in pieces that are overwritten by the next. */
function* safetensors(list: readonly Tensor[]): Iterable<Uint8Array> {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let end = 0;
  for (const { name, shape } of list)
    header[name] = { dtype: "BF16", shape, data_offsets: [end, (end += 2 * shape.reduce((a, b) => a * b, 1))] };
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(padded.length));
  yield Buffer.concat([size, padded]);
  for (const { shape, fill } of list) {
    const [cols, rows] = [shape.at(-1)!, shape.length === 1 ? 1 : shape[0]!];
    const together = Math.max(1, Math.min(rows, Math.floor(CHUNK / (2 * cols))));
    const chunk = new Uint16Array(together * cols);
    for (let at = 0; at < rows; at += together) {
      const count = Math.min(together, rows - at);
      for (let i = 0; i < count; ++i) fill(chunk.subarray(i * cols, (i + 1) * cols), at + i);
      yield new Uint8Array(chunk.buffer, 0, 2 * count * cols);
    }
  }
}
