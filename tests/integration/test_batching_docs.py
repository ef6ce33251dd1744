"""The examples of docs/batching.md, one after the other in one program."""

import re
import subprocess
import sys
from pathlib import Path

from server_process import PATIENCE_S, ROOT, environment

PAGE = (ROOT / "docs" / "batching.md").read_text()


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 2
    program = tmp_path / "program.py"  # TorchScript wants its source
    program.write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "has length 200 along dimension 1, expected 1 to 128" in done.stdout
