"""docs/triton.md, followed step by step on a repository as Triton has it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from server_process import ROOT, start
from torch import nn

GUIDE = (ROOT / "docs" / "triton.md").read_text()
LABELS = ("setosa", "versicolor", "virginica")


class Classifier(nn.Module):
    """The third number decides."""

    def forward(self, measures: torch.Tensor) -> torch.Tensor:
        third = measures[:, 2:3]
        return torch.cat([2 - third, third - 2, third - 5], dim=1)


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    return re.sub(r"^   ", "", found[1], flags=re.MULTILINE)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What the guide starts from; the file knows nothing of pyserve."""
    folder = tmp_path / "models" / "classifier"
    (folder / "1").mkdir(parents=True)
    torch.jit.script(Classifier()).save(folder / "1" / "model.pt")
    (folder / "config.pbtxt").write_text(block("protobuf"))
    (folder / "labels.txt").write_text("\n".join(LABELS))
    return folder.parent


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_the_guide_is_followed_on_a_repository_of_tritons(repository: Path, tmp_path: Path) -> None:
    assert "--model-repository models" in block("sh")
    with start(tmp_path / "log", "--model-repository", str(repository)) as server:
        config = server.get("/v2/models/classifier/config").json
        assert config["max_batch_size"] == 16
        assert config["instance_group"][0]["count"] == 2
        assert [one["name"] for one in config["input"]] == ["INPUT__0"]
        client = block("python").replace("127.0.0.1:8000", server.url.removeprefix("http://"))
        done = subprocess.run(
            [sys.executable, "-c", client], capture_output=True, text=True, check=True, timeout=90
        )
        assert "0.600000:0:setosa" in done.stdout
        assert server.stop() == 0


def test_every_option_of_ours_that_the_guide_names_exists() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "pyserve", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    ).stdout
    table = GUIDE.partition("## The command line")[2].partition("\n## ")[0]
    ours = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")]
    options = {option for cell in ours for option in re.findall(r"--[a-z][a-z-]+", cell)}
    assert len(options) > 8
    assert {option for option in options if option not in help_text} == set()
