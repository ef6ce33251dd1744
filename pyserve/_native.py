"""Loads `pyserve._C`, the C++ core, without importing torch's Python package.

The core needs torch's shared libraries, not its Python half, which costs a second of start-up
and a hundred megabytes: a server process never imports it.
"""

import ctypes
import functools
import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType

# In the order of their dependencies; those of CUDA are found by the loader from these.
_LIBRARIES = (
    "libtorch_global_deps.so",
    "libc10.so",
    "libtorch_cpu.so",
    "libtorch.so",
    "libtorch_python.so",
)


def torch_lib() -> Path:
    """Return the directory of torch's shared libraries.

    Raises ImportError when torch is not installed.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ImportError("pyserve needs torch: pip install 'torch>=2.11'")
    return Path(spec.origin).parent / "lib"


@functools.cache
def core() -> ModuleType:
    """Return `pyserve._C`, whose types are in `_C.pyi`, loading torch's libraries on first use.

    Raises ImportError when torch is not installed, or not the one that the core was built for.
    """
    lib = torch_lib()
    for name in _LIBRARIES:
        ctypes.CDLL(str(lib / name), mode=os.RTLD_GLOBAL if "global" in name else os.RTLD_LOCAL)
    return importlib.import_module("pyserve._C")
