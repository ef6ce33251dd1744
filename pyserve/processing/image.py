"""Encoded images become pixels: the same numbers as torchvision's transforms for evaluation.

`Resize`, `CenterCrop`, `ToTensor`, `Normalize`, in that order and with their rounding.  Only a few
formats are opened, and an image's size is checked before its pixels are.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pyserve.errors import ConfigError, InvalidInput
from pyserve.messages import InputTensor
from pyserve.process_config import ImageInput
from pyserve.processing.arrays import Array
from pyserve.processing.gather import gather
from pyserve.processing.steps import (
    ServedModel,
    Target,
    bad_element,
    input_names,
    target_of,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_FORMAT_NAMES = "JPEG, PNG, WebP, GIF or BMP"

_CHANNELS = {"L": 1, "RGB": 3, "BGR": 3, "RGBA": 4}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FLOATS = ("FP32", "FP16", "BF16", "FP64")

Pixels: TypeAlias = Image.Image


class ImageStep:
    """Makes one input of images; see `ImageInput` for what can be said about it."""

    kind = "image"

    def __init__(self, config: ImageInput, model: ServedModel) -> None:
        # Those that Pillow only warns of are refused as well.
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
        Image.init()  # plugins; not on the first request's time
        self._config = config
        self.input, name = input_names(model, config.input, config.tensor)
        target = target_of(model, name, ranks=(2, 3), dtypes=(*_FLOATS, "UINT8"))
        self.targets: tuple[Target, ...] = (target,)
        self._target = target
        self._flat = len(target.shape) == 2
        self._layout = config.layout or _layout(target.shape)
        self._mode = config.mode or _mode(target.shape, self._layout)
        self._channels = _CHANNELS[self._mode]
        self._check_channels()
        self._resize, self._crop = self._sizes()
        self._resample = Image.Resampling[config.interpolation.upper()]
        scale = target.dtype in _FLOATS if config.scale is None else config.scale
        self._divisor = np.float32(255) if scale else None
        self._mean = self._statistics("mean", config.mean)
        self._std = self._statistics("std", config.std)
        if target.dtype == "UINT8" and (scale or config.mean or config.std):
            raise ConfigError(f'scale, mean and std make fractions, input "{name}" is UINT8')

    def prepare(self, elements: Sequence[memoryview]) -> list[InputTensor]:
        """Decode and transform each element; the rows of a request have one size."""
        return [gather(self.input, self._target, elements, self._row)]

    def _row(self, index: int, element: memoryview) -> Array:
        return self._pixels(index, self._load(index, element))

    def _load(self, index: int, element: memoryview) -> Pixels:
        """Return the upright, decoded image."""
        try:
            image = Image.open(BytesIO(element), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise self._too_large(index, "its header says") from None
        except UnidentifiedImageError:
            what = "empty" if not len(element) else f"{len(element)} bytes that are"
            raise bad_element(self.input, index, f"{what} no {_FORMAT_NAMES} image") from None
        except Exception:  # what a decoder raises on hostile bytes is anybody's guess
            raise bad_element(self.input, index, f"a damaged {_FORMAT_NAMES} image") from None
        width, height = image.size
        if width * height > self._config.max_pixels:
            raise self._too_large(index, f"{width} x {height} pixels are")
        try:
            image.load()
        except Exception:
            raise bad_element(
                self.input, index, f"a damaged or cut off {image.format} image"
            ) from None
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except Exception:
            return image  # EXIF data that cannot be read say nothing
        return image

    def _pixels(self, index: int, image: Pixels) -> Array:
        """Return the transformed pixels of one image, in the model's layout."""
        image = image.convert("RGB" if self._mode == "BGR" else self._mode)
        image = self._resized(index, image)
        if self._crop is not None:
            image = _center_crop(image, *self._crop)
        pixels: Array = np.asarray(image).reshape(image.height, image.width, self._channels)
        if self._mode == "BGR":
            pixels = pixels[:, :, ::-1]
        if self._target.dtype != "UINT8":
            pixels = pixels.astype(np.float32)
            if self._divisor is not None:
                pixels /= self._divisor
            if self._mean is not None:
                pixels -= self._mean
            if self._std is not None:
                pixels /= self._std
        if self._flat:
            return pixels[:, :, 0]
        return pixels.transpose(2, 0, 1) if self._layout == "CHW" else pixels

    def _resized(self, index: int, image: Pixels) -> Pixels:
        if self._resize is None:
            return image
        if isinstance(self._resize, tuple):
            height, width = self._resize
        else:
            width, height = _shorter_side(image.width, image.height, self._resize)
        if (width, height) == image.size:
            return image
        # A picture of one pixel's width would become millions of pixels high.
        if width * height > self._config.max_pixels:
            raise self._too_large(index, f"resized to {width} x {height} pixels it is")
        return image.resize((width, height), self._resample)

    def _too_large(self, index: int, what: str) -> InvalidInput:
        limit = self._config.max_pixels
        return bad_element(self.input, index, f"{what} too large: at most {limit} pixels")

    def _check_channels(self) -> None:
        target = self._target
        if self._flat:
            fits = self._channels == 1
        else:
            fits = target.shape[0 if self._layout == "CHW" else 2] in (-1, self._channels)
        if not fits:
            raise ConfigError(
                f'mode {self._mode} has {self._channels} channels, input "{target.name}" has rows '
                f"of shape {list(target.shape)} ({self._layout})"
            )

    def _sizes(self) -> tuple[int | tuple[int, int] | None, tuple[int, int] | None]:
        """Return resize and crop; what is left open is read off the model's signature."""
        shape = self._target.shape
        wanted = shape if self._flat else shape[1:] if self._layout == "CHW" else shape[:2]
        resize = self._config.resize
        resize = resize if resize is None or isinstance(resize, int) else (resize[0], resize[1])
        crop = self._config.crop
        if isinstance(crop, int):
            crop = (crop, crop)
        elif crop is not None:
            crop = (crop[0], crop[1])
        elif -1 not in wanted:
            if resize is None:
                resize = (wanted[0], wanted[1])
            elif isinstance(resize, int):
                crop = (wanted[0], wanted[1])
        final = crop or (resize if isinstance(resize, tuple) else None)
        if final is not None:
            if any(want not in (-1, size) for size, want in zip(final, wanted, strict=True)):
                raise ConfigError(
                    f"images become {final[0]} x {final[1]} (height x width), input "
                    f'"{self._target.name}" has rows of shape {list(shape)}'
                )
        elif any(size != -1 for size in wanted):
            raise ConfigError(
                f'input "{self._target.name}" has rows of shape {list(shape)}: needs crop, or '
                "resize as [height, width]"
            )
        return resize, crop

    def _statistics(self, key: str, values: tuple[float, ...]) -> Array | None:
        if not values:
            return None
        if len(values) not in (1, self._channels):
            raise ConfigError(
                f"{key} has {len(values)} values, expected one, or one for each of the "
                f"{self._channels} channels"
            )
        return np.asarray(values, np.float32)


def _layout(shape: tuple[int, ...]) -> str:
    """Read the layout off a shape: channels come first unless only the last can be they."""
    if len(shape) == 3 and shape[0] not in (-1, *_MODES) and shape[2] in _MODES:
        return "HWC"
    return "CHW"


def _mode(shape: tuple[int, ...], layout: str) -> str:
    channels = 1 if len(shape) == 2 else shape[0 if layout == "CHW" else 2]
    return _MODES.get(channels, "RGB")


def _shorter_side(width: int, height: int, size: int) -> tuple[int, int]:
    """Return width and height with the shorter one at `size`; rounds down, as torchvision."""
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def _center_crop(image: Pixels, height: int, width: int) -> Pixels:
    """Cut the middle out; what is too small is padded with black, one more right and below."""

    def start(have: int, want: int) -> int:
        return -((want - have) // 2) if want > have else round((have - want) / 2.0)

    left, top = start(image.width, width), start(image.height, height)
    if (left, top, width, height) == (0, 0, *image.size):
        return image
    return image.crop((left, top, left + width, top + height))
