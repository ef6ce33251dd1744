"""What processing reads of a model, without one, and how tests give a step its elements."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pyserve.config import load_model_config
from pyserve.messages import InputTensor, OutputTensor
from pyserve.processing.arrays import oip_dtype, to_array, to_bytes
from pyserve.processing.processor import Processor, make_processor
from pyserve.signature import TensorSpec, encode_bytes_elements

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Described:
    """A model's signature."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "FP32", (3,)),)
    batched: bool = True
    max_batch_size: int = 8
    class_labels: tuple[str, ...] = ()
    name: str = "m"
    version: str = "1"


def takes(name: str, dtype: str, *shape: int, batched: bool = True) -> Described:
    """A model with one input."""
    spec = TensorSpec(name, dtype, shape)
    return Described((spec,), batched=batched, max_batch_size=8 if batched else 0)


def processor(
    model: Described, config: str, *folders: Path, allow_handlers: bool = False
) -> Processor:
    """The processor of a config.yaml."""
    made = make_processor(model, load_model_config(config), folders, allow_handlers)
    assert made is not None
    return made


def files(name: str, *elements: bytes) -> InputTensor:
    """One BYTES input with a file in each row."""
    return InputTensor(name, "BYTES", (len(elements), 1), encode_bytes_elements(elements))


def array_of(tensor: InputTensor | OutputTensor) -> Array:
    """The numbers of a tensor."""
    return to_array(tensor.datatype, tensor.shape, tensor.data)


def output(name: str, array: Array) -> OutputTensor:
    """An array as the model gives it."""
    dtype = oip_dtype(array)
    assert dtype is not None
    return OutputTensor(name, dtype, array.shape, to_bytes(dtype, array))


async def prepared(made: Processor, name: str, *elements: bytes) -> dict[str, Array]:
    """What becomes of one input's elements."""
    tensors = await made.prepare([files(name, *elements)])
    return {one.name: array_of(one) for one in tensors}


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Noise, which shows every error of a pixel."""
    channels = len(mode) if mode != "L" else 1
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(noise[:, :, 0] if channels == 1 else noise)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array: Array, **options: Any) -> bytes:
    """An array as a file of numpy."""
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays: Array) -> bytes:
    """Arrays as one compressed file of numpy."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def strings(tensor: OutputTensor) -> list[str]:
    """The elements of a BYTES output."""
    elements: Sequence[bytes] = array_of(tensor).ravel().tolist()
    return [one.decode() for one in elements]
