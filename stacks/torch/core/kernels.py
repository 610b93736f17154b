"""Loads what build.py made of kernels/NAME.cu: `load("NAME").function(tensor.data_ptr(), …, stream)`, by ctypes."""

import atexit
import ctypes
import os
import shutil
import tempfile


def load(name: str) -> ctypes.CDLL:
    """A library can't be opened inside a zip, so it is written to a folder of its own for as long as the process lives. Raises OSError where there is none."""
    data = __loader__.get_data(os.path.join(os.path.dirname(__file__), f"{name}.so"))  # type: ignore[name-defined]
    folder = tempfile.mkdtemp(prefix="kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = os.path.join(folder, f"{name}.so")
    with open(path, "wb") as file:
        file.write(data)
    return ctypes.CDLL(path)
