"""Compiles the .proto files here into one file of descriptors, when pyserve is built.

`setup.py` runs it, and so may whoever has changed a .proto: `python pyserve/protos/build.py`.  It
imports nothing of pyserve, which is not installed yet when it runs.
"""

from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent
DESCRIPTORS = HERE / "protos.binpb"


def build() -> None:
    """Write `protos.binpb`: every .proto of this folder, and what they import."""
    # Whoever reads it meanwhile reads the old one or the new one.
    written = DESCRIPTORS.with_suffix(".new")
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.glob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={HERE}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--descriptor_set_out={written}",
            "--include_imports",
            *sources,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with {status}; it has said why")
    written.replace(DESCRIPTORS)


if __name__ == "__main__":
    build()
