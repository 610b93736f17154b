import { constants } from "node:fs";
import { open } from "node:fs/promises";

/**
 * The beginning of a file that untrusted code had in its hands, as text, at most `limit` bytes. Not followed where it is a link to this machine's own
 * files, not waited for where it is a pipe. Throws the system's error.
 */
export async function readUntrusted(path: string, limit: number): Promise<string> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const { size } = await file.stat();
  const buffer = Buffer.alloc(Math.min(limit, size));
  const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
  return buffer.toString("utf8", 0, bytesRead);
}
