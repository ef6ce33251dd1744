"""The commands as a user types them: what they print, and how they say that something is wrong."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from server_process import Server, environment, one_line, run, start

import pyserve

# --- the group ----------------------------------------------------------------------------------


def test_help_lists_the_commands_and_a_first_round() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("serve", "export", "inspect", "predict", "zoo", "pyserve zoo build digits"):
        assert word in done.stdout


@pytest.mark.parametrize("name", ["serve", "export", "inspect", "predict", "zoo"])
def test_each_command_explains_itself_with_an_example(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    assert f"pyserve {name}" in done.stdout


def test_help_imports_neither_torch_nor_aiohttp() -> None:
    script = (
        "import sys\n"
        "from pyserve.cli import group\n"
        "try:\n"
        "    group(['--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "print([name for name in ('torch', 'aiohttp', 'numpy', 'rich') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert done.stdout.endswith("[]\n")


def test_version_is_the_packages() -> None:
    assert run("--version").stdout == f"pyserve {pyserve.__version__}\n"


def test_an_unknown_command_is_2() -> None:
    done = run("srve")
    assert done.returncode == 2
    assert "No such command" in done.stderr


# --- inspect ------------------------------------------------------------------------------------


def test_inspect_shows_a_files_signature(affine: Path) -> None:
    text = run("inspect", str(affine)).stdout
    for word in ("x  FP32[any, 4]", "y  FP32[any, 4]", "max batch size: 64", "torch"):
        assert word in text
    facts = json.loads(run("inspect", str(affine), "--json").stdout)
    assert facts["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


def test_inspect_asks_a_server(server: Server) -> None:
    for target in ("affine", "affine/1"):
        text = run("inspect", f"{target}@{server.url}").stdout
        assert "x  FP32[any, 4]" in text
        assert "versions  1" in text


@pytest.mark.parametrize(
    ("target", "code", "words"),
    [
        ("nowhere.pt", 2, ["no such file", "NAME@http"]),
        ("affine@http://127.0.0.1:1", 1, ["cannot reach", "pyserve serve"]),
        ("affine@http://", 2, ["http://HOST:PORT"]),
        ("affine@ftp://x", 2, ["http://HOST:PORT"]),
    ],
)
def test_inspect_says_what_is_wrong(target: str, code: int, words: list[str]) -> None:
    done = run("inspect", target)
    assert done.returncode == code
    for word in words:
        assert word in one_line(done.stderr)


# --- predict ------------------------------------------------------------------------------------


def predict(server: Server, *arguments: str) -> str:
    done = run("predict", *arguments, "--url", server.url)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "text", ["x=[1, 2, 3, 4]", "[1,2,3,4]", "[[1,2,3,4]]", "x=[[1, 2, 3, 4], [0, 0, 0, 0]]"]
)
def test_predict_takes_numbers(server: Server, text: str) -> None:
    out = predict(server, "affine", "--input", text)
    assert "y  FP32[" in out
    assert "[3, 5, 7, 9" in out
    assert "queue" in out


def test_predict_takes_files(server: Server, tmp_path: Path) -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    np.save(tmp_path / "a.npy", np.array(values))
    (tmp_path / "a.json").write_text(json.dumps([values]))
    (tmp_path / "a.bin").write_bytes(struct.pack("<4f", *values))
    for name in ("a.npy", "a.json", "a.bin"):
        answer = json.loads(predict(server, "affine", "-i", f"@{tmp_path / name}", "--json"))
        assert answer["outputs"][0]["data"] == [3, 5, 7, 9]


def test_predict_takes_a_priority_and_a_timeout(server: Server) -> None:
    numbers = ("affine", "--input", "[1, 2, 3, 4]")
    assert "y" in predict(server, *numbers, "--priority", "1", "--timeout", "20")
    refused = run("predict", *numbers, "--priority", "4", "--url", server.url)
    assert refused.returncode == 2
    assert "priority is 4, expected 1 (high), 2 (normal), 3 (low)" in refused.stderr
    late = run("predict", "patient", *numbers[1:], "--timeout", "0.3", "--url", server.url)
    assert late.returncode == 1


def test_predict_takes_several_inputs_strings_and_halves(server: Server) -> None:
    out = predict(server, "pair", "-i", "a=[1, 5, 3]", "-i", "b=[2, 4, 3]", "--output", "sum")
    assert "sum  INT64[1, 3]  [3, 9, 6]" in out
    assert "large" not in out
    assert '["HELLO"]' in predict(server, "shout", "-i", "hello")
    assert '["A", "B"]' in predict(server, "shout", "-i", 'text=["a", "b"]')


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("digits")
    done = run("zoo", "build", "digits", "-o", str(repository))
    assert done.returncode == 0, done.stderr
    assert "pyserve serve --model-repository" in done.stdout
    return repository


def test_predict_takes_a_picture_of_a_digit(digits: Path, tmp_path: Path) -> None:
    from models.digits import load_digits_split

    split = load_digits_split()
    with start(tmp_path / "log", "--model-repository", str(digits)) as server:
        for index in range(3):
            pixels = (split.test_images[index, 0] * 255).round().astype(np.uint8)
            path = tmp_path / "digit.png"
            Image.fromarray(pixels).save(path)
            out = predict(server, "digits", "--input", f"@{path}")
            assert f"largest at index {split.test_labels[index]}" in out
        Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(tmp_path / "large.jpg")
        assert "logits" in predict(server, "digits", "-i", f"image=@{tmp_path / 'large.jpg'}")
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["affine", "-i", "[1, 2, 3]"], 2, ["[-1, 4]", "[3]"]),
        (["affine", "-i", "z=[1]"], 2, ["x=..."]),
        (["affine", "-i", "hello"], 2, ["hello", "@FILE"]),
        (["affine", "-i", "[[1, 2], [3]]"], 2, ["differ in length"]),
        (["affine", "-i", "@nowhere.npy"], 2, ["nowhere.npy"]),
        (["nope", "-i", "[1]"], 1, ["no model", "404"]),
        (["fussy", "-i", "[-1, 2, 3, 4]"], 1, ["negative numbers make me sad"]),
        (["pair", "-i", "a=[1, 2, 3]"], 2, ['"b"']),
    ],
)
def test_predict_says_what_is_wrong(
    server: Server, arguments: list[str], code: int, words: list[str]
) -> None:
    done = run("predict", *arguments, "--url", server.url)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in one_line(done.stderr)


# --- export and zoo -----------------------------------------------------------------------------

MODULE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 2)

    def forward(self, image, scale):
        return self.layer(image) * scale

def build():
    return Net()

text = "no module"
"""


def test_export_writes_a_file_that_serves(tmp_path: Path) -> None:
    source = tmp_path / "my_model.py"
    source.write_text(MODULE)
    target = tmp_path / "net.pt"
    arguments = ["--example", "image=FP32[2,6]", "--example", "scale=FP32[2,1]"]
    done = run("export", f"{source}:build", *arguments, "-o", str(target), "--output-name", "out")
    assert done.returncode == 0, done.stderr
    assert "image, scale -> out" in done.stdout
    with start(tmp_path / "log", str(target)) as server:
        inputs = ["-i", f"image={[0.5] * 6}", "-i", "scale=[2]"]
        assert "out  FP32[1, 2]" in predict(server, "net", *inputs)
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("source", "example", "words"),
    [
        ("my_model", "FP32[1]", ["MODULE:CALLABLE"]),
        ("my_model.py:nope", "FP32[1]", ["nope"]),
        ("my_model.py:text", "FP32[1]", ["str"]),
        ("nowhere.py:build", "FP32[1]", ["nowhere.py", "no such file"]),
        ("nowhere_at_all:build", "FP32[1]", ["nowhere_at_all"]),
        ("my_model.py:build", "image=FP31[1]", ["FP31", "BOOL"]),
        ("my_model.py:build", "image", ["NAME=DTYPE[SIZES]"]),
        ("my_model.py:build", "picture=FP32[1,6]", ["picture"]),
    ],
)
def test_export_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, example: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_model.py").write_text(MODULE)
    done = run("export", source, "--example", example, "-o", "out.pt")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "out.pt").exists()


def test_zoo_lists_and_builds(tmp_path: Path) -> None:
    listed = run("zoo", "list").stdout
    assert {line.split()[0] for line in listed.splitlines()} >= {"affine", "digits", "resnet18"}
    done = run("zoo", "build", "affine", "tiny", "-o", str(tmp_path))
    assert done.returncode == 0
    assert (tmp_path / "affine" / "1" / "model.pt").is_file()
    assert (tmp_path / "tiny" / "1" / "model.pt").is_file()
    done = run("zoo", "build", "afine", "-o", str(tmp_path))
    assert done.returncode == 2
    assert "affine" in one_line(done.stderr)
