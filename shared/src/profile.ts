import { z } from "zod";

/** Where a stack's time went. Names come from the candidate's own symbols: untrusted text, control characters removed. */
export const Profile = z.strictObject({
  /**
   * perf: samples of the CPU clock. callgrind: instructions of one short request, counted under emulation. ncu: launches of an accelerator's kernels, each alone
   * on it; behind a kernel's name stands what it reached.
   */
  source: z.enum(["perf", "callgrind", "ncu"]),
  /** Largest first. share: of all samples (or instructions; of the launches' time), 0 to 1. */
  regions: z.array(z.strictObject({ name: z.string().max(200), share: z.number().min(0).max(1), samples: z.int().min(0) })).max(60),
  samples: z.int().min(0),
  /** Rate without the profiler over the rate with it, 1 is no effect; above 1.1 shares are hints only. Null where it can't be told (callgrind, ncu). */
  observerEffect: z.number().positive().nullable(),
  note: z.string().max(500),
});
export type Profile = z.infer<typeof Profile>;

/**
 * What the device could do at the most for this model and workload: each output token needs at least these bytes and operations, and the device's peaks were
 * measured at enrolment. A bound, not a measurement of any stack.
 */
export const Roofline = z.strictObject({
  /** Bytes of weights and KV cache read an output token, at the workload's concurrency; operations (multiply and add are two), prompt included. */
  bytesPerToken: z.number().positive(),
  opsPerToken: z.number().positive(),
  /** As measured on this device: GB/s read, and 1e9 operations a second in the fastest type that the stacks know. */
  memoryGBs: z.number().positive(),
  gops: z.number().positive(),
  /** Output tokens a second: the smaller of the two bounds. */
  tokPerS: z.number().positive(),
  limit: z.enum(["memory", "compute"]),
});
export type Roofline = z.infer<typeof Roofline>;
