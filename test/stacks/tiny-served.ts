import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { tempDir } from "../kit/temp-dir.ts";
import { ServedStack } from "./served.ts";
import { tinyModel, type Format } from "./tiny-model.ts";

/** Serves the tiny model with a built stack. */
export async function serveTiny(binary: string, format?: Format, seed?: number, cpus?: string): Promise<ServedStack> {
  using dir = tempDir("tiny-model"); // the stack has the file mapped once it is healthy
  const model = join(dir.path, "tiny.gguf");
  writeFileSync(model, tinyModel(format, seed));
  return await ServedStack.start(binary, model, cpus);
}

/** The ids of text made of ASCII other than digits' neighbours: byte b is 3 + b. Only for text without "he" and "ll". */
export function byteIds(text: string): number[] {
  return [...Buffer.from(text)].map((b) => 3 + b);
}
