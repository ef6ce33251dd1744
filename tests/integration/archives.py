"""Archives for TorchServe's API, made by TorchServe's own archiver."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from pyserve.export import export

LABELS = {str(index): [f"n0{index}", name] for index, name in enumerate(("red", "green", "blue"))}

HANDLER = """
import json

import torch
from ts.torch_handler.base_handler import BaseHandler


class Doubler(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        self.version = context.manifest["model"]["modelVersion"]

    def preprocess(self, data):
        return torch.tensor([json.loads(row["body"])["x"] for row in data])

    def postprocess(self, data):
        return [{"y": row, "version": self.version} for row in data.tolist()]
"""

OWN_INFERENCE = (
    HANDLER.replace("Doubler", "Alone")
    + """
    def inference(self, data):
        return data
"""
)


class Colours(nn.Module):
    """The score of each colour is its mean over the picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=[2, 3])


class Affine(nn.Module):
    """y = 2x + 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1


class Scaled(nn.Module):
    """y = kx; tells the versions of a model apart."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class Segments(nn.Module):
    """Every pixel is of class 1 where it is red, else of class 0."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        red = x[:, :1]
        return {"out": torch.cat([-red, red], dim=1), "aux": red}


class Tally(nn.Module):
    """Scores of two classes: how many tokens are there, and how many are not padding."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        known = (input_ids == 1).sum(dim=1)
        return torch.stack([known, attention_mask.sum(dim=1) - known], dim=1).float()


class Pair(nn.Module):
    """Two inputs, two outputs."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + b, "difference": a - b}


def script(module: nn.Module, path: Path) -> Path:
    """Save a module as TorchScript, as a user of TorchServe does: without a signature."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
    return path


def archive(
    store: Path, name: str, *options: str, version: str = "1.0", handler: str = "base_handler"
) -> None:
    """Run torch-model-archiver."""
    subprocess.run(
        [
            str(Path(sys.executable).parent / "torch-model-archiver"),
            *("--model-name", name, "--version", version, "--handler", handler),
            *("--export-path", str(store), "--force", *options),
        ],
        check=True,
        capture_output=True,
    )


def build_store(folder: Path) -> Path:
    """Fill a model store, and return it."""
    store = folder / "store"
    store.mkdir()
    labels = folder / "index_to_name.json"
    labels.write_text(json.dumps(LABELS))
    handler = folder / "doubler.py"
    handler.write_text(HANDLER)
    colours = str(script(Colours(), folder / "colours.pt"))
    affine = str(script(Affine(), folder / "affine.pt"))
    serialized = "--serialized-file"
    archive(
        *(store, "colours", serialized, colours, "--extra-files", str(labels)),
        handler="image_classifier",
    )
    archive(store, "line", serialized, affine, "--archive-format", "tgz")
    archive(store, "pair", serialized, str(script(Pair(), folder / "pair.pt")))
    segments = str(script(Segments(), folder / "segments.pt"))
    archive(store, "segments", serialized, segments, handler="image_segmenter")
    archive(store, "tally", serialized, *_tally(folder), handler="text_classifier")
    archive(store, "doubler", serialized, affine, handler=str(handler))
    return store


def _tally(folder: Path) -> tuple[str, str, str]:
    """Return the options for a text classifier: a model with a signature, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    files = folder / "text"
    files.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(files / "tokenizer.json"))
    (files / "index_to_name.json").write_text('{"0": "good", "1": "other"}')
    whole = torch.tensor([[1, 0, 1]])
    export(
        Tally(),
        files / "tally.pt",
        inputs={"input_ids": whole, "attention_mask": torch.ones_like(whole)},
        dynamic={"input_ids": [1], "attention_mask": [1]},
        output_names=["scores"],
    )
    extra = f"{files / 'tokenizer.json'},{files / 'index_to_name.json'}"
    return str(files / "tally.pt"), "--extra-files", extra
