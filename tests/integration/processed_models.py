"""Models with processing declared, for tests of a real server."""

from pathlib import Path
from textwrap import dedent

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn

from pyserve.export import export

LABELS = ("red", "green", "blue")
SENTENCES = ["the quick brown fox", "jumps over the lazy dog", "the end"]


class Colours(nn.Module):
    """The mean of each channel, as logits."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(dim=(2, 3))


class Loudness(nn.Module):
    """Root mean square, and how many samples there were."""

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        samples = torch.full_like(wave[:, 0], wave.shape[1])
        return torch.stack([wave.square().mean(dim=1).sqrt(), samples], dim=1)


class Tokens(nn.Module):
    """The sum of the ids that the mask keeps."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return (input_ids * attention_mask).sum(dim=1)


class Weighted(nn.Module):
    """One number of three columns."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features @ torch.tensor([1.0, 10.0, 100.0])


class Sum(nn.Module):
    """Two inputs."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


PROCESSOR = """
    from .words import NUMBERS

    class Words:
        inputs = [{"name": "word", "dtype": "BYTES", "shape": [1]}]
        outputs = [{"name": "spoken", "dtype": "BYTES", "shape": []}]

        def setup(self, context):
            self.words = {number: word for word, number in NUMBERS.items()}

        def preprocess(self, inputs):
            words = [element.decode() for element in inputs["word"].ravel()]
            if "crash" in words:
                raise RuntimeError("not for clients: /secret/path")
            for word in words:
                if word not in NUMBERS:
                    raise ValueError(f"{word!r} is no number from one to four")
            return {"x": [[NUMBERS[word]] for word in words]}

        def postprocess(self, outputs):
            return {"spoken": [self.words.get(int(one), "many") for one in outputs["y"][:, 0]]}
"""


def build_repository(repository: Path) -> Path:
    """Fill `repository` and return it."""
    _put(
        repository,
        "colours",
        Colours(),
        {"image": torch.zeros(1, 3, 8, 8)},
        """
        class_labels: [red, green, blue]
        preprocess: [{kind: image, resize: 10, crop: 8}]
        postprocess: [{kind: classification, top: 2}]
        """,
        output="logits",
    )
    _put(
        repository,
        "loudness",
        Loudness(),
        {"wave": torch.ones(1, 100)},
        "preprocess: [{kind: audio, input: recording, tensor: wave, sample_rate: 8000}]",
        dynamic={"wave": [1]},
    )
    ids = torch.ones(1, 3, dtype=torch.int64)
    _put(
        repository,
        "tokens",
        Tokens(),
        {"input_ids": ids, "attention_mask": ids},
        "preprocess: [{kind: text}]",
        dynamic={"input_ids": [1], "attention_mask": [1]},
    )
    write_tokenizer(repository / "tokens" / "tokenizer.json")
    _put(
        repository,
        "weighted",
        Weighted(),
        {"features": torch.ones(1, 3)},
        "preprocess: [{kind: table, columns: [a, b, c]}]",
    )
    _put(
        repository,
        "sum",
        Sum(),
        {"a": torch.ones(1, 2), "b": torch.ones(1, 2)},
        "preprocess: [{kind: numpy, input: arrays}]",
    )
    _put(repository, "listed", Double(), {"x": torch.ones(1, 2)}, "preprocess: [{kind: json}]")
    _put(repository, "words", Double(), {"x": torch.ones(1, 1)}, "processor: words.py:Words")
    folder = repository / "words"
    (folder / "words.py").write_text(dedent(PROCESSOR).replace(".words", ".numbers_"))
    (folder / "numbers_.py").write_text('NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}\n')
    _put(
        repository,
        "misfit",
        Double(),
        {"x": torch.ones(1, 2)},
        "preprocess: [{kind: text, ids: x}]",
    )
    return repository


def write_tokenizer(path: Path) -> None:
    """Train a tokenizer of byte pairs on a few lines."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=80, special_tokens=["[PAD]", "[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.save(str(path))


def _put(
    repository: Path,
    name: str,
    module: nn.Module,
    inputs: dict[str, torch.Tensor],
    config: str,
    *,
    output: str = "y",
    dynamic: dict[str, list[int]] | None = None,
) -> None:
    folder = repository / name
    export(
        module,
        folder / "1" / "model.pt",
        inputs=inputs,
        output_names=[output],
        dynamic=dynamic,
        max_batch_size=16,
    )
    (folder / "config.yaml").write_text(dedent(config))
