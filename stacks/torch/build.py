"""python3 build.py OUT: checks that every file of the tree compiles and packs core/ into OUT, one executable zip that Python runs."""

import os
import pathlib
import shutil
import sys
import tempfile
import zipapp


def build(out: str) -> None:
    here = pathlib.Path(__file__).resolve().parent
    sources = sorted((here / "core").glob("*.py"))
    for source in sources:
        compile(source.read_text(encoding="utf-8"), str(source), "exec")
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(out))) as scratch:
        package = pathlib.Path(scratch) / "core"
        package.mkdir()
        for source in sources:
            shutil.copyfile(source, package / source.name)
        (pathlib.Path(scratch) / "__main__.py").write_text("from core.main import main\nmain()\n", encoding="utf-8")
        zipapp.create_archive(scratch, out, interpreter="/usr/bin/env python3")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: build.py OUT")
    build(sys.argv[1])
