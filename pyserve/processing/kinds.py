"""From a kind in a configuration to its step; a kind's libraries are imported only with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyserve.process_config import (
    AudioInput,
    ClassificationOutput,
    ImageInput,
    JsonInput,
    NumpyInput,
    Postprocess,
    Preprocess,
    SoftmaxOutput,
    TextInput,
)
from pyserve.processing.optional import need
from pyserve.processing.outputs import ArgmaxStep, ClassificationStep, OutputStep, SoftmaxStep
from pyserve.processing.steps import InputStep, ServedModel


def input_step(config: Preprocess, model: ServedModel, folders: Sequence[Path]) -> InputStep:
    """Make one step of `preprocess` for a model; ConfigError where it cannot be."""
    if isinstance(config, ImageInput):
        need("image", "PIL.Image")
        from pyserve.processing.image import ImageStep

        return ImageStep(config, model)
    if isinstance(config, AudioInput):
        need("audio", "soundfile", "scipy.signal")
        from pyserve.processing.audio import AudioStep

        return AudioStep(config, model)
    if isinstance(config, TextInput):
        need("text", "tokenizers")
        from pyserve.processing.text import TextStep

        return TextStep(config, model, folders)
    if isinstance(config, NumpyInput):
        from pyserve.processing.numpy_files import NumpyStep

        return NumpyStep(config, model)
    if isinstance(config, JsonInput):
        from pyserve.processing.json_rows import JsonStep

        return JsonStep(config, model)
    from pyserve.processing.table import TableStep

    return TableStep(config, model)


def output_step(config: Postprocess, model: ServedModel) -> OutputStep:
    """Make one step of `postprocess` for a model; ConfigError where it cannot be."""
    if isinstance(config, ClassificationOutput):
        return ClassificationStep(config, model)
    if isinstance(config, SoftmaxOutput):
        return SoftmaxStep(config, model)
    return ArgmaxStep(config, model)
