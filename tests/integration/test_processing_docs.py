"""The examples of docs/processing.md, as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processed_models import Colours, Double, Sum, Tokens, write_tokenizer
from server_process import ROOT, Server, start, tensor
from torch import nn

from pyserve.export import export

PAGE = (ROOT / "docs" / "processing.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def block(language: str, *words: str) -> str:
    (found,) = [one for one in blocks(language) if all(word in one for word in words)]
    return found


class Length(nn.Module):
    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return waveform.sum(dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of models that the page's configurations fit."""
    folder = tmp_path_factory.mktemp("docs")
    ids = torch.ones(1, 3, dtype=torch.int64)
    tokens = {"input_ids": ids, "attention_mask": ids}
    two = {"a": torch.ones(1, 2), "b": torch.ones(1, 2)}
    pictures = {"image": torch.zeros(1, 3, 224, 224)}
    put(folder, "pets", Colours(), pictures, block("yaml", "models/pets"))
    put(folder, "eyes", Colours(), pictures, block("yaml", "preprocess: [{kind: image"))
    put(folder, "ears", Length(), {"waveform": torch.ones(1, 9)}, block("yaml", "audio"), [1])
    put(folder, "mood", Tokens(), tokens, block("yaml", "kind: text"), [1])
    put(folder, "arrays", Sum(), two, block("yaml", "kind: numpy"))
    put(folder, "credit", Double(), {"features": torch.ones(1, 2)}, block("yaml", "table"))
    put(folder, "listed", Double(), {"x": torch.ones(1, 2)}, block("yaml", "kind: json"))
    put(folder, "detector", Double(), {"x": torch.ones(1, 2)}, block("yaml", "processor:"))
    models = folder / "models"
    (models / "pets" / "labels.txt").write_text("dog\ncat\nbird\n")
    (models / "detector" / "processor.py").write_text(block("python", "class Boxes"))
    write_tokenizer(models / "mood" / "tokenizer.json")
    Image.new("RGB", (300, 260), (9, 200, 30)).save(folder / "cat.jpg")
    return folder


def put(
    folder: Path,
    name: str,
    module: nn.Module,
    inputs: dict[str, torch.Tensor],
    config: str,
    dynamic: list[int] | None = None,
) -> None:
    home = folder / "models" / name
    sizes = {} if dynamic is None else dict.fromkeys(inputs, dynamic)
    export(
        module,
        home / "1" / "model.pt",
        inputs=list(inputs.values()),
        input_names=list(inputs),
        output_names=["y"],
        dynamic=sizes,
    )
    (home / "config.yaml").write_text(config)


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with start(log, "--model-repository", str(folder / "models"), "--allow-handlers") as running:
        yield running
        assert running.stop() == 0


def test_every_configuration_of_the_page_serves(server: Server) -> None:
    assert server.ready["failed"] == {}
    assert len(server.ready["models"]) == 8


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", [one for one in blocks("sh") if "curl" in one])
def test_every_command_of_the_page_is_answered(server: Server, folder: Path, command: str) -> None:
    here = command.replace("http://127.0.0.1:8000", server.url).replace("curl ", "curl -sSf ")
    done = subprocess.run(
        ["bash", "-c", here], cwd=folder, capture_output=True, timeout=60, check=True
    )
    answer = (folder / "answer.bin").read_bytes() if "--output" in command else done.stdout
    assert b'"outputs":' in answer


def test_the_client_of_the_page_prints_the_classes(server: Server, folder: Path) -> None:
    script = block("python", "tritonclient").replace("127.0.0.1:8000", server.url[len("http://") :])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("[[b'cat' b'bird' b'dog']]")


def test_the_class_of_the_page_runs(server: Server) -> None:
    request = {"inputs": [tensor("boxes", "BYTES", [2, 1], ["1x2", "3x4"])]}
    (areas,) = server.infer("detector", request).json["outputs"]
    np.testing.assert_allclose(areas["data"], [32, 192])
