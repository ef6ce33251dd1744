"""The examples for gRPC, run as their pages say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from server_process import PATIENCE_S, ROOT, Server


def test_the_ten_line_client_predicts(server: Server, tmp_path: Path) -> None:
    """Its stub is compiled by the command that its docstring shows."""
    example = ROOT / "examples" / "grpc_predict.py"
    (line,) = [one for one in example.read_text().splitlines() if "grpc_tools.protoc" in one]
    arguments = line.replace("pyserve/protos", str(ROOT / "pyserve" / "protos")).split()
    assert arguments[0] == "python"
    subprocess.run([sys.executable, *arguments[1:]], cwd=tmp_path, check=True, timeout=PATIENCE_S)
    done = subprocess.run(
        [sys.executable, str(example), server.grpc],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout == "3.0\n"


def test_the_page_shows_the_client_as_it_is() -> None:
    """What docs/grpc.md prints is the part of the example that a reader copies."""
    text = (ROOT / "examples" / "grpc_predict.py").read_text()
    code = text.partition("import struct")[2]
    assert code in (ROOT / "docs" / "grpc.md").read_text()
