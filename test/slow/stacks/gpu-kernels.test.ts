import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { tempDir } from "../../kit/temp-dir.ts";

/** A kernel for both: RMS norm over rows of bfloat16 bits, a host function that starts it, and one that needs no GPU. */
const KERNEL = `
#ifdef __HIP__
#ifdef BARE  // a compiler without HIP's headers
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define rsqrtf __builtin_amdgcn_rsqf
#define TID __builtin_amdgcn_workitem_id_x()
#define BID __builtin_amdgcn_workgroup_id_x()
#define SYNC() __builtin_amdgcn_s_barrier()
#else
#include <hip/hip_runtime.h>
#endif
#endif
#ifndef TID
#define TID threadIdx.x
#define BID blockIdx.x
#define SYNC() __syncthreads()
#endif
__device__ static float wide(unsigned short b) { union { unsigned u; float f; } v; v.u = unsigned(b) << 16; return v.f; }
__device__ static unsigned short narrow(float f) { union { float f; unsigned u; } v; v.f = f; return (v.u + 0x7fff + ((v.u >> 16) & 1)) >> 16; }
__global__ void rms(const unsigned short* x, const unsigned short* w, unsigned short* y, int n, float eps) {
  __shared__ float part[256];
  float sum = 0;
  for (int i = TID; i < n; i += 256) { const float v = wide(x[BID * n + i]); sum += v * v; }
  part[TID] = sum;
  SYNC();
  for (int s = 128; s > 0; s >>= 1) { if (int(TID) < s) part[TID] += part[TID + s]; SYNC(); }
  const float scale = rsqrtf(part[0] / n + eps);
  for (int i = TID; i < n; i += 256) y[BID * n + i] = narrow(wide(x[BID * n + i]) * scale * wide(w[i]));
}
#ifndef BARE
extern "C" int threads() { return 256; }
#ifdef __HIP__
extern "C" void run(const void* x, const void* w, void* y, int rows, int n, float eps, hipStream_t s) {
#else
extern "C" void run(const void* x, const void* w, void* y, int rows, int n, float eps, cudaStream_t s) {
#endif
  using B = unsigned short;
  rms<<<rows, 256, 0, s>>>((const B*)x, (const B*)w, (B*)y, n, eps);
}
#endif
`;

const works = (argv: string[]) => spawnSync(argv[0]!, [...argv.slice(1), "--version"]).status === 0;
const nvcc = process.env["NVCC"] ?? ["nvcc", "/usr/local/cuda/bin/nvcc"].find((c) => works([c]));
const clang = ["clang-19", "clang-18", "clang"].find((c) => works([c]));

function tree(folder: string): string {
  const own = join(folder, "tree");
  cpSync(join(import.meta.dirname, "../../../stacks/torch"), own, { recursive: true });
  mkdirSync(join(own, "kernels"));
  writeFileSync(join(own, "kernels/norm.cu"), KERNEL);
  return own;
}

describe.skipIf(nvcc === undefined)("CUDA (skipped where there is no nvcc; NVCC names one, words and all)", () => {
  test.for(["sm_90a", "sm_89"])(
    "a kernel of a torch candidate is compiled for %s without a GPU, packed, and loaded",
    { timeout: 180_000 },
    (arch) => {
      using dir = tempDir("cuda");
      const out = join(dir.path, "stack");
      const built = spawnSync("python3", ["build.py", out, "--cuda", arch], {
        cwd: tree(dir.path),
        encoding: "utf8",
        env: { ...process.env, NVCC: nvcc },
      });
      expect([built.status, built.stderr]).toEqual([0, expect.stringContaining(`for '${arch}'`)]);
      expect(built.stderr).toMatch(/0 bytes spill stores/);
      const ask = "import sys; sys.path.insert(0, sys.argv[1]); from core.kernels import load; print(load('norm').threads())";
      expect(execFileSync("python3", ["-c", ask, out]).toString().trim()).toBe("256");
    },
  );
});

describe.skipIf(clang === undefined)("HIP (skipped where there is no clang)", () => {
  test("the same kernel compiles for gfx942 without ROCm, device code alone", () => {
    using dir = tempDir("hip");
    const source = join(tree(dir.path), "kernels/norm.cu");
    const flags = ["-x", "hip", "--offload-arch=gfx942", "--cuda-device-only", "-nogpuinc", "-nogpulib", "-DBARE", "-O3", "-std=c++17"];
    const listing = execFileSync(clang!, [...flags, "-S", source, "-o", "-"]).toString();
    expect(listing).toContain("gfx942");
    expect(listing).toMatch(/v_rsq_f32/);
  });
});
