"""benchmarks/gpu.sh where there is no GPU, and its table where parts of it fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import table

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_gpu_it_says_so_in_one_line_and_exits_with_3() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ended = subprocess.run(
        [str(ROOT / "benchmarks" / "gpu.sh")],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 3
    assert len(ended.stdout.splitlines()) == 1
    assert "no GPU" in ended.stdout
    assert ended.stderr == ""


def test_the_table_says_failed_where_a_part_failed() -> None:
    lines = table(
        {
            ("mlp", "bare module"): {
                "1": {"requests_per_s": 12345.6, "p50_us": 80.4},
                "64": {"requests_per_s": 987654.3, "p50_us": 64.0},
            },
            ("mlp", "HTTP"): {"1": {"requests_per_s": 2.0, "p50_us": 3.0}},
            ("mlp", "HTTP, graphs"): None,
        }
    ).splitlines()
    assert lines[2] == "| mlp | bare module | 12,346 | 80 | 987,654 | 64 |"
    assert lines[3] == "| mlp | HTTP | 2 | 3 | failed | failed |"
    assert lines[4] == "| mlp | HTTP, graphs | failed | failed | failed | failed |"
    assert len({line.count("|") for line in lines}) == 1
