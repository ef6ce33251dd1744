"""Values from the shell become tensors: JSON, a JSON file, a .npy file, a picture, raw bytes.

A server's metadata says which dtype and shape an input wants; what is missing against it is
filled in where only one way makes sense: a batch of one, and flat numbers in a known shape.
"""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from pyserve.errors import ConfigError

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")


class Wanted(NamedTuple):
    """An input as the server describes it; -1 in the shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Given(NamedTuple):
    """An input as it is sent: `data` is bytes (little-endian) or a flat list of JSON values."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | list[Any]


def read_input(text: str, wanted: Wanted) -> Given:
    """Turn what was written after `NAME=` into the tensor that `wanted` describes."""
    if not text.startswith("@"):
        return _from_json(text, wanted)
    path = Path(text[1:])
    try:
        if path.suffix.lower() in _PICTURES:
            return _from_picture(path, wanted)
        if path.suffix == ".npy":
            return _from_npy(path, wanted)
        if path.suffix == ".json":
            return _from_json(path.read_text(encoding="utf-8"), wanted)
        data = path.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    from pyserve.signature import DTYPES

    size = DTYPES[wanted.datatype].size
    if not size:
        # The whole file is one string.
        return Given(wanted.name, "BYTES", _fit((1,), wanted), _bytes_element(data))
    if len(data) % size:
        raise ConfigError(
            f"{path} has {len(data)} bytes, no multiple of {size} ({wanted.datatype})"
        )
    return Given(wanted.name, wanted.datatype, _fit((len(data) // size,), wanted), data)


def _from_json(text: str, wanted: Wanted) -> Given:
    try:
        value = json.loads(text)
    except ValueError as error:
        if wanted.datatype != "BYTES":
            raise ConfigError(
                f'input "{wanted.name}": {text[:40]!r} is no JSON ({error}); '
                "expected numbers such as [1, 2], or a file as @FILE"
            ) from None
        value = text
    flat: list[Any] = []
    shape = _flatten(value, flat, wanted.name)
    return Given(wanted.name, wanted.datatype, _fit(shape, wanted), flat)


def _flatten(value: object, flat: list[Any], name: str) -> tuple[int, ...]:
    """Append the numbers of nested lists to `flat` and return their shape."""
    if not isinstance(value, list):
        flat.append(value)
        return ()
    shapes = {_flatten(item, flat, name) for item in value}
    if len(shapes) > 1:
        raise ConfigError(f'input "{name}": the rows of a list differ in length')
    return (len(value), *(shapes.pop() if shapes else ()))


def _fit(shape: Sequence[int], wanted: Wanted) -> tuple[int, ...]:
    """Return the shape to send for a tensor of `shape`; ConfigError where none is evident."""
    expected = wanted.shape
    for candidate in (tuple(shape), (1, *shape)):
        if len(candidate) == len(expected) and all(
            want in (-1, size) for size, want in zip(candidate, expected, strict=True)
        ):
            return candidate
    count = prod(shape)
    open_sizes = [index for index, size in enumerate(expected) if size == -1]
    fixed = prod(size for size in expected if size != -1)
    if len(shape) <= 1 and len(open_sizes) <= 1 and fixed and count % fixed == 0:
        filled = list(expected)
        for index in open_sizes:
            filled[index] = count // fixed
        if prod(filled) == count:
            return tuple(filled)
    raise ConfigError(
        f'input "{wanted.name}" wants {wanted.datatype} of shape {list(expected)}, '
        f"got {list(shape)}"
    )


def _from_npy(path: Path, wanted: Wanted) -> Given:
    try:
        import numpy as np
    except ImportError:
        raise ConfigError("reading .npy files needs numpy: pip install numpy") from None
    from pyserve.signature import DTYPES

    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ConfigError(f"{path}: not a .npy file of numbers: {error}") from None
    if wanted.datatype == "BYTES":
        elements = [str(one).encode() for one in array.reshape(-1)]
        data = b"".join(_bytes_element(one) for one in elements)
        return Given(wanted.name, "BYTES", _fit(array.shape, wanted), data)
    numpy_name = DTYPES[wanted.datatype].numpy
    if numpy_name is None:
        raise ConfigError(f'input "{wanted.name}" wants {wanted.datatype}, which .npy cannot hold')
    if not np.can_cast(array.dtype, numpy_name, "same_kind"):
        raise ConfigError(
            f'input "{wanted.name}" wants {wanted.datatype}, {path} holds {array.dtype}'
        )
    converted = np.ascontiguousarray(array, np.dtype(numpy_name).newbyteorder("<"))
    return Given(wanted.name, wanted.datatype, _fit(array.shape, wanted), converted.tobytes())


def _from_picture(path: Path, wanted: Wanted) -> Given:
    """Scale a picture to the size the model takes; floats go from 0 (black) to 1."""
    try:
        from PIL import Image
    except ImportError:
        raise ConfigError("reading pictures needs Pillow: pip install 'pyserve[image]'") from None
    channels, height, width, channels_last = _picture_layout(wanted)
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L" if channels == 1 else "RGB")
    except OSError as error:
        raise ConfigError(f"{path}: not a picture that can be read: {error}") from None
    size = (picture.width if width == -1 else width, picture.height if height == -1 else height)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    pixels = picture.tobytes()
    if channels > 1 and not channels_last:
        pixels = b"".join(pixels[channel::channels] for channel in range(channels))
    plane = (size[1], size[0])
    shape: tuple[int, ...] = (*plane, channels) if channels_last else (channels, *plane)
    if (
        len(wanted.shape) in (2, 3)
        and channels == 1
        and 1 not in (wanted.shape[0], wanted.shape[-1])
    ):
        shape = plane
    if wanted.datatype == "UINT8":
        return Given(wanted.name, "UINT8", _fit(shape, wanted), pixels)
    if wanted.datatype not in ("FP16", "BF16", "FP32", "FP64"):
        raise ConfigError(f'input "{wanted.name}" wants {wanted.datatype}, not a picture')
    values = [pixel / 255 for pixel in pixels]
    return Given(wanted.name, wanted.datatype, _fit(shape, wanted), values)


def _picture_layout(wanted: Wanted) -> tuple[int, int, int, bool]:
    """Return channels, height, width, and whether the channels come last."""
    shape = wanted.shape
    if len(shape) >= 3 and shape[-3] in (1, 3):
        return shape[-3], shape[-2], shape[-1], False
    if len(shape) >= 3 and shape[-1] in (1, 3):
        return shape[-1], shape[-3], shape[-2], True
    if len(shape) in (2, 3):
        return 1, shape[-2], shape[-1], False
    raise ConfigError(f'input "{wanted.name}" has shape {list(shape)}, which fits no picture')


def _bytes_element(element: bytes) -> bytes:
    return len(element).to_bytes(4, "little") + element
