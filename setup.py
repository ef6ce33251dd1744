"""Builds `pyserve._C`, the C++ core, against the torch that is installed, and compiles the protos.

Everything else about the package stands in pyproject.toml.  The sources are listed in
csrc/sources.txt, which CMake reads too.
"""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).parent


def sources() -> list[str]:
    """Return the files that csrc/sources.txt lists."""
    text = (ROOT / "csrc" / "sources.txt").read_text()
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


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
    ext_modules=[
        CppExtension(
            "pyserve._C",
            sources(),
            include_dirs=[str(ROOT / "csrc")],
            extra_compile_args=compile_flags(),
        )
    ],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPython},
)
