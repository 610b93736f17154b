import { createHash, type Hash } from "node:crypto";
import { open } from "node:fs/promises";

/** One buffer, used again and again: a stream's many buffers left 40 MB in the allocator after a compiler had been hashed. */
const PIECE_BYTES = 256 * 1024;

/** Feeds a file's bytes to a hash. */
export async function hashFile(hash: Hash, path: string): Promise<void> {
  await using file = await open(path, "r");
  const piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
  for (;;) {
    const { bytesRead } = await file.read(piece, 0, PIECE_BYTES, null);
    if (bytesRead === 0) return;
    hash.update(piece.subarray(0, bytesRead));
  }
}

/** sha256 of a file's bytes. */
export async function digestOfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  await hashFile(hash, path);
  return hash.digest("hex");
}
