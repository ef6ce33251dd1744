"""The examples of docs/client.md, one after the other in one program, against a real server."""

import re
import subprocess
import sys
from pathlib import Path

from server_process import PATIENCE_S, ROOT, environment, start

PAGE = (ROOT / "docs" / "client.md").read_text()


def test_the_examples_of_the_page_run(affine: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 10
    repository = affine.parents[2]
    with start(tmp_path / "log", "--model-repository", str(repository)) as server:
        program = "\n".join(blocks)
        program = program.replace("http://127.0.0.1:8000", server.url)
        program = program.replace("127.0.0.1:8001", server.ready["grpc"])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "refused: input" in done.stdout
        assert server.stop() == 0


def test_the_page_names_every_option_and_method_of_the_client() -> None:
    from pyserve import Client

    for name in vars(Client):
        if not name.startswith("_") and name not in ("url", "server_metadata"):
            assert name in PAGE, name
