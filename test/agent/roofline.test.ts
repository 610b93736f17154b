import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { Device, Roofline, type Workload } from "@vibeserve/shared";
import { findCompiler } from "../../gpu-agent/src/probe/compiler.ts";
import { probeCpu } from "../../gpu-agent/src/probe/cpu-features.ts";
import { readTopology } from "../../gpu-agent/src/probe/cpu-topology.ts";
import { cpuDevice } from "../../gpu-agent/src/probe/device.ts";
import { measurePeaks, peakType } from "../../gpu-agent/src/probe/peaks.ts";
import { modelShape, shapeOfFile, type ModelShape } from "../../gpu-agent/src/profile/model-shape.ts";
import { meanLength, rooflineOf } from "../../gpu-agent/src/profile/roofline.ts";
import { createRng } from "../../shared/src/index.ts";
import { drawLength } from "../../gpu-agent/src/bench/workload.ts";
import { writeTinyGguf } from "../accuracy/tiny-gguf.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { weightsPath } from "../kit/weights.ts";

const closed = (concurrency: number, prompt: number, output: number, requests = 100): Workload => ({
  arrival: { process: "closed", concurrency },
  prompt: { distribution: "fixed", tokens: prompt },
  output: { distribution: "fixed", tokens: output },
  requests,
});

it("the bound is what a hand computes", () => {
  const shape: ModelShape = { weightBytes: 1000, bodyWeights: 300, headWeights: 100, layers: 2, heads: 4, kvHeads: 2, headDim: 8 };
  // KV: 2 tensors · 2 layers · 2 heads · 8 · 2 bytes = 128 bytes a position. Of 4 output tokens 3 read 10 + 4/2 = 12 positions.
  // Fed: 10 + 4 − 1 = 13 tokens; attention 4 · 2 · 4 · 8 · (13 · 14 / 2) = 256 · 91.
  const memory = rooflineOf(shape, closed(5, 10, 4), { memoryGBs: 1, gops: 1e9, type: "f32" });
  expect(memory.bytesPerToken).toBe(1000 / 5 + 128 * 12 * 0.75);
  expect(memory.opsPerToken).toBe((2 * 300 * 13 + 2 * 100 * 4 + 256 * 91) / 4);
  expect(memory).toMatchObject({ limit: "memory", tokPerS: 1e9 / 1352, memoryGBs: 1, gops: 1e9 });
  const compute = rooflineOf(shape, closed(5, 10, 4), { memoryGBs: 1e9, gops: 1, type: "f32" });
  expect(compute).toMatchObject({ limit: "compute", tokPerS: 1e9 / 7974 });
  expect(Roofline.parse(compute)).toEqual(compute);
});

it("no more sequences share a step than there are requests; an open loop is taken as eight", () => {
  const shape: ModelShape = { weightBytes: 800, bodyWeights: 1, headWeights: 1, layers: 1, heads: 1, kvHeads: 1, headDim: 1 };
  const peaks = { memoryGBs: 1, gops: 1, type: "f32" };
  const bytes = (w: Workload): number => rooflineOf(shape, w, peaks).bytesPerToken;
  // An answer of one token comes out of the prompt's pass: no step reads the cache.
  expect(bytes(closed(64, 7, 1, 4))).toBe(200);
  expect(bytes({ ...closed(1, 7, 1), arrival: { process: "poisson", ratePerS: 3 } })).toBe(100);
});

it("lengths enter by their means, also where a draw is clipped", () => {
  expect(meanLength({ distribution: "uniform", min: 10, max: 30 })).toBe(20);
  for (const length of [
    { distribution: "lognormal", median: 100, sigma: 0.6, min: 1, max: 10_000 },
    { distribution: "lognormal", median: 100, sigma: 1.2, min: 40, max: 150 },
  ] as const) {
    const rng = createRng("means");
    const drawn = Array.from({ length: 20_000 }, () => drawLength(length, rng));
    const mean = drawn.reduce((a, b) => a + b, 0) / drawn.length;
    expect(Math.abs(meanLength(length) / mean - 1)).toBeLessThan(0.02);
  }
});

it("SmolLM2's file says what a token of it costs: tied head, grouped heads, the bytes that its tensors really have", () => {
  const shape = shapeOfFile(weightsPath());
  const perLayer = 576 * 576 * 2 + 576 * 192 * 2 + 576 * 1536 * 3;
  expect(shape).toMatchObject({ layers: 30, heads: 9, kvHeads: 3, headDim: 64, bodyWeights: 30 * perLayer, headWeights: 49152 * 576 });
  const fileBytes = statSync(weightsPath()).size;
  // The head is the embedding here, so all but the file's header is read.
  expect(shape?.weightBytes).toBeGreaterThan(0.95 * fileBytes);
  expect(shape?.weightBytes).toBeLessThan(fileBytes);
  if (shape === null) throw new Error("no shape");
  const one = rooflineOf(shape, closed(1, 1, 2), { memoryGBs: 98, gops: 1e6, type: "f32" });
  expect(one.tokPerS).toBeGreaterThan(990);
  expect(one.tokPerS).toBeLessThan(1050);
});

it("a head of its own is counted and the embedding is not; a model with experts, or without its numbers, has no bound", () => {
  using dir = tempDir("shape");
  const path = join(dir.path, "tiny.gguf");
  const tensors = writeTinyGguf(path, { dim: 64, ffn: 96, heads: 4, kvHeads: 2, layers: 2, vocab: 320 }, "shape");
  const shape = shapeOfFile(path);
  const body = [...tensors.values()].filter((t) => t.name.startsWith("blk.") && t.rows > 0).reduce((n, t) => n + t.cols * t.rows, 0);
  expect(shape).toMatchObject({ layers: 2, heads: 4, kvHeads: 2, headDim: 16, bodyWeights: body, headWeights: 320 * 64 });
  // Q8_0: 34 bytes for 32 weights. The embedding has as many as the head, and is left out.
  const head = (320 * 64 * 34) / 32;
  expect(shape?.weightBytes).toBeGreaterThan(head);
  expect(shape?.weightBytes).toBeLessThan(statSync(path).size - head);
  const known: [string, string | number][] = [
    ["general.architecture", "x"],
    ["x.block_count", 1],
    ["x.embedding_length", 8],
    ["x.attention.head_count", 2],
  ];
  const tensor = { name: "token_embd.weight", shape: [8, 4], type: 0, offset: 0 };
  expect(modelShape({ metadata: new Map(known), tensors: [tensor] }, 128)).toMatchObject({ kvHeads: 2, headDim: 4, weightBytes: 128 });
  expect(modelShape({ metadata: new Map([...known, ["x.expert_count", 8]]), tensors: [tensor] }, 128)).toBeNull();
  expect(modelShape({ metadata: new Map(known.slice(0, 2)), tensors: [tensor] }, 128)).toBeNull();
});

it("the fastest arithmetic is chosen by bits: tiles, then VNNI, then what every machine has", () => {
  const zen4 = ["avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"];
  expect(peakType([...zen4, "amx_tile", "amx_bf16", "amx_int8"])).toBe("int8-amx");
  expect(peakType(zen4)).toBe("int8-avx512-vnni");
  expect(peakType(["avx2", "fma"])).toBe("int8-avx2");
  expect(peakType(["neon", "dotprod"])).toBe("f32");
});

it("peaks are measured once for a machine, then read; measured again the larger value stays; a damaged record is not believed", async () => {
  using dir = tempDir("peaks");
  const compiler = await findCompiler(null);
  const topology = { ...readTopology(), memBytes: 2 ** 30 };
  const { bits } = await probeCpu(compiler, dir.path);
  const deps = { compiler, cacheDir: join(dir.path, "cache"), topology, bits };
  const first = await measurePeaks(deps);
  if (first === null) throw new Error("no peaks with a compiler");
  expect(first.type).toBe(peakType(bits));
  expect(first.memoryGBs).toBeGreaterThan(0.1);
  expect(first.gops).toBeGreaterThan(0.1);
  const device = { ...cpuDevice(topology, { bits, source: "cpuid" }, "a1", compiler), peaks: first };
  expect(Device.parse(device)).toEqual(device);
  const record = readdirSync(join(deps.cacheDir, "peaks")).find((name) => name.endsWith(".json")) ?? "";
  const path = join(deps.cacheDir, "peaks", record);
  const written = statSync(path).mtimeMs;
  expect(await measurePeaks(deps)).toEqual(first);
  expect(statSync(path).mtimeMs).toBe(written);
  const again = await measurePeaks(deps, true);
  expect(again?.memoryGBs).toBeGreaterThanOrEqual(first.memoryGBs);
  expect(again?.gops).toBeGreaterThanOrEqual(first.gops);
  writeFileSync(path, JSON.stringify({ memoryGBs: 1e6, gops: 1e6 }));
  expect((await measurePeaks(deps))?.gops).toBeLessThan(1e6);
  expect(readFileSync(path, "utf8")).not.toContain("1000000");
  // Every machine has a path: the portable arithmetic runs here as well.
  expect(await measurePeaks({ ...deps, bits: [] })).toMatchObject({ type: "f32", gops: expect.any(Number) as number });
});

it("without a compiler, or where nothing can be written, there are no peaks and no error", async () => {
  using dir = tempDir("peaks");
  const topology = readTopology();
  expect(await measurePeaks({ compiler: null, cacheDir: dir.path, topology, bits: [] })).toBeNull();
  writeFileSync(join(dir.path, "file"), "");
  expect(await measurePeaks({ compiler: await findCompiler(null), cacheDir: join(dir.path, "file"), topology, bits: [] })).toBeNull();
});
