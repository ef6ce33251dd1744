"""What `preprocess` and `postprocess` in a model's config.yaml may say: one struct per kind.

Each struct is one item of the list; `kind` says which.  Checked here is what needs no model;
whether a step fits the model's signature is checked at load, in `pyserve/processing`.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec

Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
Name = Annotated[str, msgspec.Meta(min_length=1)]

# Pillow itself warns of more.
_MOST_PIXELS = 89_478_485


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """One item of `preprocess` or `postprocess`; None leaves a value to the model's signature."""


class ImageInput(Step, frozen=True, kw_only=True, tag="image"):
    """JPEG, PNG, WebP, GIF or BMP files become pixels, as torchvision's transforms make them."""

    input: Name | None = None
    tensor: Name | None = None
    mode: Literal["RGB", "BGR", "RGBA", "L"] | None = None
    # One number: the shorter side.  Two: height and width.
    resize: Size | tuple[Size, ...] | None = None
    interpolation: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = (
        "bilinear"
    )
    crop: Size | tuple[Size, ...] | None = None
    # Whether values are divided by 255.
    scale: bool | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["CHW", "HWC"] | None = None
    max_pixels: Annotated[int, msgspec.Meta(ge=1, le=_MOST_PIXELS)] = 50_000_000

    def __post_init__(self) -> None:
        for key, size in (("resize", self.resize), ("crop", self.crop)):
            if isinstance(size, tuple) and len(size) != 2:
                raise ValueError(f"{key}: expected one number, or [height, width]")
        if 0 in self.std:
            raise ValueError("std: expected numbers other than 0")


class AudioInput(Step, frozen=True, kw_only=True, tag="audio"):
    """WAV and FLAC files become samples from -1 to 1."""

    input: Name | None = None
    tensor: Name | None = None
    sample_rate: Annotated[int, msgspec.Meta(ge=1_000, le=192_000)] = 16_000
    mono: bool = True
    # In samples: what is shorter is padded with silence, of what is longer the beginning is taken.
    length: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] | None = None
    # To zero mean and unit variance, as speech models want it.
    normalize: bool = False
    max_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0


class TextInput(Step, frozen=True, kw_only=True, tag="text"):
    """Text becomes token ids, by a file of Hugging Face's `tokenizers`."""

    input: Name = "text"
    tokenizer: Name = "tokenizer.json"
    ids: Name | None = None
    mask: Name | None = None
    type_ids: Name | None = None
    max_length: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | None = None
    padding: Literal["longest", "max_length"] | None = None
    pad_to_multiple_of: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 1
    special_tokens: bool = True


class NumpyInput(Step, frozen=True, kw_only=True, tag="numpy"):
    """Files of numpy become tensors: one array (npy), or several by name (npz)."""

    input: Name | None = None
    tensors: tuple[Name, ...] = ()


class TableInput(Step, frozen=True, kw_only=True, tag="table"):
    """Tables, as CSV or Arrow IPC, become rows of numbers."""

    input: Name | None = None
    tensor: Name | None = None
    columns: tuple[Name, ...] = ()
    format: Literal["auto", "csv", "arrow"] = "auto"
    header: bool = True
    delimiter: Annotated[str, msgspec.Meta(min_length=1)] = ","

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise ValueError("delimiter: expected one character")
        if self.columns and not self.header:
            raise ValueError("columns are found by the header's names: they need header: true")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("columns: a name is given twice")


class JsonInput(Step, frozen=True, kw_only=True, tag="json"):
    """A JSON array of numbers, flat or nested, becomes one row."""

    input: Name | None = None
    tensor: Name | None = None


class ClassificationOutput(Step, frozen=True, kw_only=True, tag="classification"):
    """The best classes of each row, with their names."""

    output: Name | None = None
    top: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 5
    softmax: bool = True
    labels: Name = "labels"
    scores: Name = "scores"

    def __post_init__(self) -> None:
        if self.labels == self.scores:
            raise ValueError(f'labels and scores are both named "{self.labels}"')


class SoftmaxOutput(Step, frozen=True, kw_only=True, tag="softmax"):
    """Probabilities over the last dimension, in place of the output or under a name of its own."""

    output: Name | None = None
    name: Name | None = None


class ArgmaxOutput(Step, frozen=True, kw_only=True, tag="argmax"):
    """The index of the largest value over the last dimension."""

    output: Name | None = None
    name: Name | None = None


Preprocess: TypeAlias = ImageInput | AudioInput | TextInput | NumpyInput | TableInput | JsonInput
Postprocess: TypeAlias = ClassificationOutput | SoftmaxOutput | ArgmaxOutput
