import { z } from "zod";
import { MAX_DEVICES } from "./device.ts";
import { message } from "./message.ts";
import { ModelFormat } from "./model-shape.ts";

const argv = z.array(z.string().max(4096)).min(1).max(64);

/** What a request may carry beside the bare minimum. A stack answers 400 to anything that it does not list. */
export const Feature = z.enum([
  "chat",
  "completions",
  "score",
  "stream",
  "max_tokens",
  "stop",
  "temperature",
  "top_p",
  "seed",
  "logprobs",
  "ignore_eos",
  "usage",
  "cancel",
]);
export type Feature = z.infer<typeof Feature>;

/** Name of what `${OUT}` makes, in a build's folder. */
export const OUT_FILE = "stack";

/**
 * `stack.json` at the root of a candidate's tree: how it is built and served. Written by the seed's author and by agents, so untrusted: parsed with
 * bounds, and a key that is not known is an error.
 * build: run in the tree (read-only copy); `${CXX}` is the compiler (one argument, maybe of several words), `${OUT}` the file to make.
 * serve: `${OUT}`, `${SOCKET}`, `${MODEL}`, `${CPUS}`, `${DEVICES}` (their number) are replaced; must listen on the unix socket and answer GET /health with 200 once loaded.
 */
export const StackManifest = message("stack", {
  name: z.string().min(1).max(64),
  build: argv,
  serve: argv,
  dialect: z.literal("openai"),
  /**
   * For what is compiled on the device itself: so many seconds more than others it may take until GET /health answers 200. It compiles, captures and tunes then,
   * unscored; how long that took stands apart in the outcome.
   */
  warmup: z.strictObject({ seconds: z.int().min(1).max(180) }).optional(),
  features: z.array(Feature).min(1),
  /** What it loads: formats of checkpoints, and the model_type of their config.json. Absent: GGUF of the Llama family. */
  loads: z.strictObject({ formats: z.array(ModelFormat).min(1), families: z.array(z.string().min(1).max(64)).min(1).max(32) }).optional(),
  /**
   * memBytes: bound on its resident memory while it serves, for each device that it serves on; default 4 GiB: weights as float32 twice over, and a KV cache for 64 requests.
   * maxDevices: on how many devices at once it can serve, `${DEVICES}` of them; absent: 1.
   */
  resources: z
    .strictObject({
      memBytes: z
        .int()
        .min(2 ** 20)
        .max(2 ** 36)
        .default(4 * 2 ** 30),
      maxDevices: z.int().min(1).max(MAX_DEVICES).optional(),
    })
    .default({ memBytes: 4 * 2 ** 30 }),
});
export type StackManifest = z.infer<typeof StackManifest>;
