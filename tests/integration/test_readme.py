"""The README's own examples, pasted as a newcomer would."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from server_process import ROOT, start

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the README's Python has been run, one block after another."""
    folder = tmp_path_factory.mktemp("readme")
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=folder, check=True, timeout=120)
    return folder


def shell(line: str, folder: Path) -> str:
    """Run a line as if the environment's programs were on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_python_examples_run_and_leave_a_model(folder: Path) -> None:
    assert (folder / "iris.pt").is_file()
    assert "features" in shell("pyserve inspect iris.pt", folder)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_shell_examples_get_an_answer_from_the_served_model(folder: Path) -> None:
    asking = next(block for block in blocks("sh") if "curl" in block)
    curl, predict = asking.split("pyserve predict", 1)
    with start(folder / "log", str(folder / "iris.pt")) as server:
        here = curl.replace("http://127.0.0.1:8000", server.url)
        answer = json.loads(shell(here, folder))
        assert answer["outputs"][0]["name"] == "logits"
        assert answer["outputs"][0]["shape"] == [1, 3]
        out = shell(f"pyserve predict {predict.strip()} --url {server.url}", folder)
        assert "logits" in out
        assert server.stop() == 0


def test_curl_line_of_make_serve_is_answered_with_the_right_digit(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    shell(f"pyserve zoo build digits -o {tmp_path}", tmp_path)
    with start(tmp_path / "log", "--model-repository", str(tmp_path)) as server:
        example = ROOT / "examples" / "digits_curl.py"
        for number in (0, 7):
            line = shell(f"python {example} --url {server.url} --number {number}", tmp_path)
            said = re.match(r"A handwritten (\d)", line)
            assert said is not None
            curl = next(one for one in line.splitlines() if one.startswith("curl"))
            answer = json.loads(shell(curl, tmp_path))
            assert answer["outputs"] == [
                {"name": "digit", "datatype": "INT64", "shape": [1], "data": [int(said[1])]}
            ]
        assert server.stop() == 0


def test_readme_names_only_pages_that_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        if "://" not in target:
            assert (ROOT / target).is_file(), target


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150
