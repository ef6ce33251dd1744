"""Which models the zoo has, and how one of them gets into a model repository."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from pyserve.errors import ConfigError

from .progress import Progress, ignore_progress

if TYPE_CHECKING:
    from .built import BuiltModel

_DESCRIPTIONS = {
    "affine": "y = 2x + 1 on 4 numbers: the smallest model, a template for your own",
    "tiny": "16 to 32 to 4 perceptron, random weights: shows what the server itself costs",
    "mlp": "256 to 1024 to 1024 to 10 perceptron, random weights",
    "digits": "convolutional network for handwritten digits of 8x8, trained on real data",
    "resnet18": "ResNet-18 for images of any height and width, random weights",
    "encoder": "6-layer transformer from token ids and mask to one embedding, random weights",
}


def names() -> list[str]:
    """Every model of the zoo, simplest first."""
    return list(_DESCRIPTIONS)


def describe(name: str) -> str:
    """One line on what a model is; ConfigError where there is none of that name."""
    try:
        return _DESCRIPTIONS[name]
    except KeyError:
        raise ConfigError(
            f'the zoo has no model "{name[:128]}"; it has {", ".join(_DESCRIPTIONS)}'
        ) from None


def build(
    name: str, repository: str | Path, *, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Build a model and export it as version 1 in `repository`; returns the model file's path.

    progress is called with a line for people and the fraction done, from 0 to 1.  A version 1 that
    is there already is replaced in one step.  Raises ConfigError for an unknown name.
    """
    describe(name)
    progress = progress or ignore_progress
    progress(f"importing torch for {name}", 0.0)
    # Only now: `pyserve zoo list` should not wait for torch.
    from pyserve.export import export

    recipe = importlib.import_module(f".{name}.build", __package__)
    built: BuiltModel = recipe.build(seed=seed, progress=progress)
    path = Path(repository) / name / "1" / "model.pt"
    progress(f"exporting {name}", 0.95)
    export(
        built.module,
        path,
        inputs=built.inputs,
        output_names=built.output_names,
        dynamic=built.dynamic,
        max_batch_size=built.max_batch_size,
        method="script",
    )
    progress(f"wrote {name}, version 1", 1.0)
    return path
