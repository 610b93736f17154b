import { existsSync } from "node:fs";
import { join } from "node:path";
import { readText } from "../process/read-text.ts";

/** CUDA, and what nvidia-smi asks. */
const LIBRARIES = ["libcuda.so.1", "libnvidia-ml.so.1"];
/** Where containers and virtual machines are given the driver's libraries without anyone having run ldconfig; CUDA's own copy, for drivers older than it, is the last. */
const GIVEN = ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/wsl/lib", "/usr/local/cuda/compat"];
const TRIPLET = process.arch === "arm64" ? "aarch64-linux-gnu" : "x86_64-linux-gnu";
/** Where the dynamic linker looks without being told, in Debian's and Fedora's ways. */
const USUAL = [`/lib/${TRIPLET}`, `/usr/lib/${TRIPLET}`, "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/** `LD_LIBRARY_PATH` with the folders of NVIDIA's libraries that the dynamic linker does not find by itself; {} where it finds all that are there. Reads the linker's cache, some 100 KB. */
export function driverLibraries(root = ""): Readonly<Record<string, string>> {
  // musl, or no cache at all: then only the usual folders count.
  const cache = readText(`${root}/etc/ld.so.cache`) ?? "";
  const there = (path: string): boolean => existsSync(`${root}${path}`);
  const folders = LIBRARIES.flatMap((name) => {
    // A cache that an image was built with may name files that are gone.
    const cached = cache.split("\0").filter((text) => text.startsWith("/") && text.endsWith(`/${name}`));
    if (cached.some(there) || USUAL.some((folder) => there(join(folder, name)))) return [];
    return GIVEN.find((folder) => there(join(folder, name))) ?? [];
  });
  return folders.length === 0 ? {} : { LD_LIBRARY_PATH: [...new Set(folders)].join(":") };
}
