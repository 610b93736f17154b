"""python3 build.py OUT [--cuda ARCH | --hip ARCH]: checks that every file of the tree compiles and packs core/, and what is bound behind its seams (seed/ and
bindings/, as the package `bound`), into OUT, one executable zip that Python runs.

With an architecture (sm_90a, sm_89; gfx942; else $GPU_ARCH) each kernels/NAME.cu becomes a library beside it, for core/kernels.py to load: C functions that take pointers,
so neither torch's headers nor its ABI matter. The same source serves both: __HIP__ is defined for ROCm. The seed has no kernels.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipapp
from typing import List, Optional

COMPILERS = {"cuda": ("nvcc", "/usr/local/cuda/bin/nvcc"), "hip": ("hipcc", "/opt/rocm/bin/hipcc")}


def compiler(kind: str) -> List[str]:
    named = os.environ.get({"cuda": "NVCC", "hip": "HIPCC"}[kind])
    for found in (named.split() if named else None, *([shutil.which(c) or c] for c in COMPILERS[kind])):
        if found and shutil.which(found[0]):
            return found
    sys.exit(f"{COMPILERS[kind][0]} is needed for kernels/ and was found neither on PATH nor at {COMPILERS[kind][1]}")


def compile_kernel(kind: str, arch: str, source: pathlib.Path, library: pathlib.Path) -> None:
    flags = ["-arch=" + arch, "-Xcompiler", "-fPIC", "-Xptxas", "-v"] if kind == "cuda" else ["--offload-arch=" + arch, "-fPIC", "-x", "hip"]
    subprocess.run([*compiler(kind), "-O3", "-std=c++17", "-shared", *flags, str(source), "-o", str(library)], check=True)


def build(out: str, kind: Optional[str] = None, arch: str = "") -> None:
    here = pathlib.Path(__file__).resolve().parent
    packages = {"core": sorted((here / "core").glob("*.py")), "bound": sorted([*here.glob("seed/*.py"), *here.glob("bindings/*/*.py")])}
    for source in [file for files in packages.values() for file in files]:
        compile(source.read_text(encoding="utf-8"), str(source), "exec")
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(out))) as scratch:
        for package, files in packages.items():
            (pathlib.Path(scratch) / package).mkdir()
            (pathlib.Path(scratch) / package / "__init__.py").touch()
            for source in files:
                # bindings/attention/slots.py is bound.attention_slots, seed/attention.py bound.attention.
                name = "_".join(source.relative_to(here).parts[1:]).replace("-", "_")
                shutil.copyfile(source, pathlib.Path(scratch) / package / name)
        for kernel in sorted((here / "kernels").glob("*.cu")) if kind else []:
            compile_kernel(kind, arch, kernel, pathlib.Path(scratch) / "core" / f"{kernel.stem}.so")
        (pathlib.Path(scratch) / "__main__.py").write_text("from core.main import main\nmain()\n", encoding="utf-8")
        zipapp.create_archive(scratch, out, interpreter="/usr/bin/env python3")


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("out")
    options.add_argument("--cuda", metavar="ARCH")
    options.add_argument("--hip", metavar="ARCH")
    given = options.parse_args()
    # What a builder says, where nobody names one: sm_90a, gfx942.
    arch = given.cuda or given.hip or os.environ.get("GPU_ARCH", "")
    build(given.out, "cuda" if given.cuda or arch.startswith("sm_") else "hip" if given.hip or arch.startswith("gfx") else None, arch)
