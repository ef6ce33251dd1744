"""Files of numpy, npy and npz, without pickle and without trust in what their headers claim.

An array is a view on the bytes that came; an archive's members are unpacked up to a limit.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from io import BytesIO
from math import prod

import numpy as np
from numpy.lib import format as npy

from pyserve.errors import ConfigError, InvalidInput
from pyserve.messages import InputTensor
from pyserve.process_config import NumpyInput
from pyserve.processing.arrays import Array, convertible
from pyserve.processing.limits import MAX_DIRECTORY_BYTES, MAX_PREPARED_BYTES
from pyserve.processing.steps import (
    ServedModel,
    Target,
    bad_element,
    input_names,
    target_of,
)
from pyserve.signature import DTYPES, fits

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_END_BYTES = 22  # of a zip's last record, without its comment
_MAX_COMMENT_BYTES = 0xFFFF


class NumpyStep:
    """Makes one or more inputs of arrays; an npz holds one array for each, by its name."""

    kind = "numpy"

    def __init__(self, config: NumpyInput, model: ServedModel) -> None:
        names = config.tensors
        known = [spec.name for spec in model.inputs]
        if names:
            self.input = config.input or names[0]
        elif config.input is not None and config.input not in known and len(known) > 1:
            self.input, names = config.input, tuple(known)
        else:
            tensor = known[0] if config.input not in known and len(known) == 1 else None
            self.input, name = input_names(model, config.input, tensor)
            names = (name,)
        if len(set(names)) != len(names):
            raise ConfigError("tensors: a name is given twice")
        dtypes = [one for one in DTYPES if one != "BYTES"]
        self.targets = tuple(target_of(model, name, ranks=(), dtypes=dtypes) for name in names)

    def prepare(self, elements: Sequence[memoryview]) -> list[InputTensor]:
        """Read each element; arrays with a dimension more than a row has hold several rows."""
        parts: dict[str, list[Array]] = {target.name: [] for target in self.targets}
        rows: dict[str, int] = dict.fromkeys(parts, 0)
        for index, element in enumerate(elements):
            arrays = self._read(index, element)
            for target in self.targets:
                array = self._as_rows(index, arrays[target.name], target)
                rows[target.name] += len(array)
                if rows[target.name] > target.most:
                    raise bad_element(self.input, index, f"the rows become more than {target.most}")
                parts[target.name].append(array)
        return [self._joined(target, parts[target.name]) for target in self.targets]

    def _joined(self, target: Target, parts: list[Array]) -> InputTensor:
        if not parts:
            return target.no_rows()
        if any(part.shape[1:] != parts[0].shape[1:] for part in parts):
            shapes = ", ".join(str(list(part.shape[1:])) for part in parts[:8])
            raise InvalidInput(
                f'input "{self.input}": the arrays for "{target.name}" have rows of several '
                f"shapes ({shapes}): send them in requests of their own"
            )
        target.check_size(sum(map(len, parts)), parts[0].shape[1:])
        return target.tensor(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def _read(self, index: int, element: memoryview) -> dict[str, Array]:
        try:
            if bytes(element[:6]) == npy.MAGIC_PREFIX:
                if len(self.targets) != 1:
                    names = ", ".join(target.name for target in self.targets)
                    raise ValueError(f"one array, expected an npz with {names}")
                return {self.targets[0].name: read_npy(element)}
            if bytes(element[:2]) == b"PK":
                return read_npz(element, [target.name for target in self.targets])
        except ValueError as error:
            raise bad_element(self.input, index, str(error)) from None
        raise bad_element(self.input, index, f"{len(element)} bytes that are no npy or npz file")

    def _as_rows(self, index: int, array: Array, target: Target) -> Array:
        """Return the array with the rows along dimension 0."""
        if fits(array.shape, target.shape):
            array = array[np.newaxis]
        elif not (target.stacked and fits(array.shape, (-1, *target.shape))):
            several = f", or several rows {[-1, *target.shape]}" if target.stacked else ""
            raise bad_element(
                self.input,
                index,
                f'"{target.name}" has shape {list(array.shape)}, expected {list(target.shape)}'
                f"{several}",
            )
        if not convertible(array, target.dtype):
            raise bad_element(
                self.input,
                index,
                f'"{target.name}" is {array.dtype.name}, which does not become {target.dtype}',
            )
        return array


def read_npy(data: memoryview) -> Array:
    """Return the array of an npy file as a view on it; ValueError says what is wrong with it."""
    # The header has at most 64 KiB in version 1; numpy itself reads no more than 10 000 characters.
    file = BytesIO(data[: 1 << 16])
    try:
        version = npy.read_magic(file)
        header = _HEADERS.get(version)
        if header is None:
            raise ValueError("version")
        shape, in_columns, dtype = header(file)
    except Exception:  # a header is a Python literal, and anything may be wrong with it
        raise ValueError("a damaged npy header") from None
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError("holds something else than numbers")
    if any(size < 0 for size in shape):
        raise ValueError("a damaged npy header")
    body = data[file.tell() :]
    if prod(shape) * dtype.itemsize != len(body) or len(shape) > 64:
        raise ValueError(
            f"its header says {list(shape)[:8]} of {dtype.name}, {len(body)} bytes follow"
        )
    if not len(body):
        return np.empty(shape, dtype)
    return np.frombuffer(body, dtype).reshape(shape, order="F" if in_columns else "C")


def read_npz(data: memoryview, names: Sequence[str]) -> dict[str, Array]:
    """Return the arrays of an npz file, which must be those named; ValueError if not."""
    _check_directory(data)
    arrays = {}
    left = MAX_PREPARED_BYTES
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            found = sorted(name.removesuffix(".npy") for name in members)
            if found != sorted(names) or len(members) != len(archive.infolist()):
                shown = ", ".join(found[:8])[:200]
                raise ValueError(f"holds the arrays {shown}, expected {', '.join(names)}")
            for name in names:
                info = members.get(f"{name}.npy") or members[name]
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError("compressed in a way that is not read")
                if info.file_size > left:
                    raise ValueError(f"unpacks to more than {MAX_PREPARED_BYTES} bytes")
                with archive.open(info) as member:
                    # Never more than its directory entry says.
                    content = member.read(info.file_size)
                left -= len(content)
                arrays[name] = read_npy(memoryview(content))
    except ValueError:
        raise
    except Exception:  # zipfile raises whatever it meets
        raise ValueError("a damaged npz file") from None
    return arrays


def _check_directory(data: memoryview) -> None:
    """Refuse an archive whose directory alone would fill the memory."""
    tail = bytes(data[-(_END_BYTES + _MAX_COMMENT_BYTES) :])
    end = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END_BYTES + 4))
    if end < 0:
        raise ValueError("a damaged npz file")
    size = int.from_bytes(tail[end + 12 : end + 16], "little")
    if size > MAX_DIRECTORY_BYTES or tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        raise ValueError("an npz file with too many arrays")
