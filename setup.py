"""Builds `pyserve._C`, the C++ core, against the torch that is installed, and compiles the protos.

Everything else about the package stands in pyproject.toml.  The sources are listed in
csrc/sources.txt, which CMake reads too.
"""

import runpy
import sys
from pathlib import Path

import torch
from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension

ROOT = Path(__file__).parent


def sources() -> list[str]:
    """Return the files that csrc/sources.txt lists."""
    text = (ROOT / "csrc" / "sources.txt").read_text()
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def cuda_includes() -> list[str]:
    """Return where CUDA's headers are, empty without a CUDA torch or without them.

    Only CUDA graphs need them.  They come with a toolkit, with the wheels that torch requires, or
    with triton's, which is where a torch of the registry finds those of the compiler (crt/).
    """
    torch_dir = Path(torch.__file__).parent
    if not (torch_dir / "include" / "c10" / "cuda" / "impl" / "cuda_cmake_macros.h").is_file():
        return []  # a CPU build
    site = torch_dir.parent
    toolkit = [Path(CUDA_HOME) / "include"] if CUDA_HOME else []
    found = [
        *toolkit,
        *sorted(site.glob("nvidia/*/include")),
        site / "triton" / "backends" / "nvidia" / "include",
    ]
    found = [one for one in found if one.is_dir()]
    for header in ("cuda_runtime_api.h", "crt/host_defines.h"):
        if not any((one / header).is_file() for one in found):
            print(f"without CUDA graphs: {header} was not found", file=sys.stderr)
            return []
    return [str(one) for one in found]


def extension() -> Extension:
    """Return the extension, with CUDA graphs where they can be compiled."""
    cuda = cuda_includes()
    return CppExtension(
        "pyserve._C",
        [*sources(), *(["csrc/runtime/cuda_graph.cc"] if cuda else [])],
        include_dirs=[str(ROOT / "csrc"), *cuda],
        extra_compile_args=[*compile_flags(), *(["-DPYSERVE_CUDA_GRAPHS"] if cuda else [])],
        libraries=["torch_cuda", "c10_cuda"] if cuda else [],
    )


def compile_flags() -> list[str]:
    """Return what every file is compiled with."""
    flags = ["-std=c++20", "-O2", "-g1", "-fvisibility=hidden", "-Wall", "-Wextra"]
    # Torch's headers are not ours to mend.
    return [*flags, "-Wno-unused-parameter", "-Wno-missing-field-initializers"]


class BuildPython(build_py):
    """Compiles the .proto files where they are: an editable install reads them from there."""

    def run(self) -> None:
        """Compile, then collect what belongs into the package."""
        runpy.run_path(str(ROOT / "pyserve" / "protos" / "build.py"))["build"]()
        super().run()


setup(
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPython},
)
