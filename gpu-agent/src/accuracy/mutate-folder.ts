import { constants } from "node:fs";
import { chmod, copyFile, mkdir, open, readdir, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { createRng, type Rng } from "@vibeserve/shared";
import { z } from "zod";
import { MOVED_ROWS, readAt, rescaleFloats, SPREAD, swapRows, writeAt, type MutateOptions } from "./mutate-gguf.ts";

const Entry = z.object({ dtype: z.string(), shape: z.array(z.int().min(0)), data_offsets: z.tuple([z.int().min(0), z.int().min(0)]) });
type Entry = z.infer<typeof Entry>;
/** Nobody's header is larger; a broken length must not make us allocate gigabytes. */
const MAX_HEADER_BYTES = 100 << 20;

/**
 * As mutateGguf, for a Hugging Face folder: a copy of every file, in whose *.safetensors the layers' norm weights (float32, bfloat16) are rescaled and some
 * rows of each `mlp.up_proj` trade places. It takes as much disk as the checkpoint, unless the file system copies on write.
 */
export async function mutateFolder({ from, to, seed }: MutateOptions): Promise<void> {
  const rng = createRng(`mutate ${seed}`);
  await rm(to, { recursive: true, force: true });
  await mkdir(to, { mode: 0o755 });
  await chmod(to, 0o755);
  for (const entry of (await readdir(from, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (!entry.isFile() || entry.name.startsWith(".")) continue;
    const copy = join(to, entry.name);
    await copyFile(join(from, entry.name), copy, constants.COPYFILE_FICLONE);
    await chmod(copy, 0o644);
    if (!entry.name.endsWith(".safetensors")) continue;
    await using file = await open(copy, "r+");
    await mutateTensors(file, rng);
    await file.sync();
  }
}

async function mutateTensors(file: FileHandle, rng: Rng): Promise<void> {
  const size = Number((await readAt(file, 0, 8)).readBigUInt64LE());
  if (size > MAX_HEADER_BYTES) throw new Error(`a safetensors header of ${size} bytes`);
  const header = JSON.parse((await readAt(file, 8, size)).toString("utf8")) as Record<string, unknown>;
  for (const [name, stated] of Object.entries(header)) {
    if (!/^model\.layers\.\d+\./.test(name)) continue;
    const { dtype, shape, data_offsets: at } = Entry.parse(stated);
    const [offset, length] = [8 + size + at[0], at[1] - at[0]];
    const norm = /norm\.weight$/.test(name) && shape.length === 1;
    const rows = /\.mlp\.up_proj\.weight$/.test(name) && shape.length === 2 ? shape[0]! : 0;
    if (!norm && rows === 0) continue;
    const bytes = await readAt(file, offset, length);
    if (norm) rescale(bytes, dtype, rng);
    else swapRows(bytes, rows, length / rows, Math.ceil((rows * MOVED_ROWS) / 2), rng);
    await writeAt(file, bytes, offset);
  }
}

/** bfloat16 is the upper half of a float32, cut. Other types stay as they are: rows that moved are change enough. */
function rescale(bytes: Buffer, dtype: Entry["dtype"], rng: Rng): void {
  if (dtype === "F32") rescaleFloats(bytes, rng);
  if (dtype !== "BF16") return;
  const wide = Buffer.alloc(4);
  for (let at = 0; at < bytes.length; at += 2) {
    wide.writeUInt32LE(bytes.readUInt16LE(at) * 0x10000);
    wide.writeFloatLE(wide.readFloatLE() * SPREAD ** (2 * rng.next() - 1));
    bytes.writeUInt16LE(wide.readUInt16LE(2), at);
  }
}
