"""What a module's inputs and outputs are, learned from running it on samples.

A sample is one call's arguments.  `pyserve.export` makes several of them, with other numbers of
rows and other sizes; what stays the same in every run is part of the signature, what changes is -1.
How the samples are run, and the file that is written, are for `pyserve.export`.
"""

import ctypes
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch

from pyserve.errors import ConfigError
from pyserve.signature import DTYPES, Example, ExampleTensor, TensorSpec, encode_bytes_elements

Value: TypeAlias = torch.Tensor | list[str]
"""A tensor, or the strings of a BYTES input or output."""

Sample: TypeAlias = tuple[Value, ...]
"""The arguments of one call, in order."""

Dims: TypeAlias = Mapping[str, Collection[int]]

EXAMPLE_ROWS = 8
EXAMPLE_BYTES = 1024 * 1024
"""What is kept of an example in the file, in whole rows and at least one."""
LARGEST_EXAMPLE_BYTES = 8 * 1024 * 1024

_DTYPE_NAMES = {getattr(torch, info.torch): name for name, info in DTYPES.items() if info.torch}


def dtype_of(name: str, value: Value) -> str:
    """The protocol's name for a value's dtype; ConfigError where it has none."""
    if isinstance(value, list):
        return "BYTES"
    dtype = _DTYPE_NAMES.get(value.dtype)
    if dtype is None:
        raise ConfigError(
            f'"{name}" has dtype {value.dtype}, which the protocol cannot carry; '
            f"convert it to one of {', '.join(DTYPES)}"
        )
    return dtype


def shape_of(value: Value) -> tuple[int, ...]:
    """A value's shape; strings have one dimension."""
    return (len(value),) if isinstance(value, list) else tuple(value.shape)


def rows_of(names: Sequence[str], sample: Sample) -> int:
    """How many rows a batched sample has; ConfigError unless all its tensors agree."""
    rows = {}
    for name, value in zip(names, sample, strict=True):
        shape = shape_of(value)
        if not shape:
            raise ConfigError(
                f'input "{name}" is a single number without a batch dimension; '
                "give it a first dimension, or export with batched=False"
            )
        rows[name] = shape[0]
    counts = set(rows.values())
    if len(counts) != 1 or 0 in counts:
        said = ", ".join(f'"{name}" has {count}' for name, count in rows.items())
        raise ConfigError(
            "dimension 0 of every input is the batch and must be the same, 1 or more, but "
            f"{said}; or export with batched=False"
        )
    return counts.pop()


def take_rows(sample: Sample, count: int) -> Sample:
    """The first `count` rows of every input."""
    return tuple(value[:count] for value in sample)


def double(value: Value, dims: Collection[int]) -> Value:
    """The value beside itself along `dims`: other sizes, and every element still a likely one."""
    for dim in dims:
        value = value + value if isinstance(value, list) else torch.cat([value, value], dim)
    return value


def checked_dims(name: str, rank: int, dims: Collection[int], batched: bool) -> frozenset[int]:
    """Dimensions as 0 or more, without the batch's; ConfigError names one that does not exist."""
    wrong = [dim for dim in dims if not -rank <= dim < rank]
    if wrong:
        raise ConfigError(
            f'`dynamic` names dimension {wrong[0]} of "{name}", which has {rank} dimensions'
        )
    return frozenset(dim % rank for dim in dims) - ({0} if batched else set())


def grown_sample(names: Sequence[str], samples: Sequence[Sample], dims: Dims) -> Sample | None:
    """The first sample with every dynamic dimension doubled that no other sample changes yet.

    dims: 0 or more, as `checked_dims` gives them.  None where nothing is left to double.
    """
    grown = list(samples[0])
    changed = False
    for index, name in enumerate(names):
        shapes = [shape_of(sample[index]) for sample in samples]
        same = {dim for dim in dims.get(name, ()) if len({shape[dim] for shape in shapes}) == 1}
        empty = [dim for dim in same if shapes[0][dim] == 0]
        if empty:
            raise ConfigError(
                f'dimension {empty[0]} of the example for "{name}" is empty; '
                "give an example with elements in it"
            )
        grown[index] = double(grown[index], same)
        changed = changed or bool(same)
    return tuple(grown) if changed else None


def learn_specs(
    kind: str,
    names: Sequence[str],
    samples: Sequence[Sample],
    *,
    batched: bool,
    dynamic: Dims,
) -> tuple[TensorSpec, ...]:
    """Specs that fit all samples; -1 where sizes differ or `dynamic` says so.

    Raises ConfigError where a dtype or the number of dimensions is not the same in all of them.
    """
    specs = []
    for index, name in enumerate(names):
        values = [sample[index] for sample in samples]
        dtypes = {dtype_of(name, value) for value in values}
        if len(dtypes) > 1:
            raise ConfigError(f'{kind} "{name}" is {" in one run and ".join(sorted(dtypes))}')
        shapes = [shape_of(value) for value in values]
        ranks = sorted({len(shape) for shape in shapes})
        if len(ranks) > 1:
            raise ConfigError(
                f'{kind} "{name}" has {ranks[0]} dimensions in one run and {ranks[-1]} in another'
            )
        varying = checked_dims(name, ranks[0], dynamic.get(name, ()), batched)
        sizes = [
            found[0] if len(set(found)) == 1 and dim not in varying else -1
            for dim, found in enumerate(zip(*shapes, strict=True))
        ]
        # A list of strings has one dimension, and nothing in a module's type fixes its length.
        if dtypes == {"BYTES"}:
            sizes = [-1]
        specs.append(TensorSpec(name, dtypes.pop(), tuple(sizes[1:] if batched else sizes)))
    return tuple(specs)


def check_rows(names: Sequence[str], outputs: Sample, rows: int) -> None:
    """ConfigError unless dimension 0 of every output is the batch."""
    for name, value in zip(names, outputs, strict=True):
        shape = shape_of(value)
        if not shape or shape[0] != rows:
            raise ConfigError(
                f'output "{name}" has shape {list(shape)} for a batch of {rows}, expected {rows} '
                "as dimension 0; return one row for each row of the inputs, "
                "or export with batched=False"
            )


class Outputs(NamedTuple):
    """What one call returned; names is None where the module gave none."""

    names: tuple[str, ...] | None
    values: Sample


def flatten(result: object) -> Outputs:
    """What a forward returned, whichever of the accepted forms it has."""
    names: tuple[str, ...] | None = None
    values: list[object]
    if isinstance(result, dict):
        names, values = tuple(str(key) for key in result), list(result.values())
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        names, values = tuple(result._fields), list(result)
    elif isinstance(result, tuple) or (isinstance(result, list) and not _is_strings(result)):
        values = list(result)
    else:
        values = [result]
    return Outputs(names, tuple(_checked_value(index, value) for index, value in enumerate(values)))


def make_example(names: Sequence[str], sample: Sample, *, batched: bool) -> Example | None:
    """A sample as it is kept in the file, cut to few rows; None where it is too large even so."""
    example = _encode(names, sample)
    size = _size(example)
    if batched:
        rows = rows_of(names, sample)
        kept = max(1, min(rows, EXAMPLE_ROWS, rows * EXAMPLE_BYTES // max(size, 1)))
        example = _encode(names, take_rows(sample, kept))
    return example if _size(example) <= LARGEST_EXAMPLE_BYTES else None


def difference(expected: Sample, got: Sample) -> str | None:
    """What differs between two runs' outputs beyond rounding, in words; None where nothing does."""
    if len(expected) != len(got):
        return f"{len(got)} outputs instead of {len(expected)}"
    for index, (want, have) in enumerate(zip(expected, got, strict=True)):
        if isinstance(want, list) or isinstance(have, list):
            if want != have:
                return f"output {index} differs"
        elif want.shape != have.shape or want.dtype != have.dtype:
            return (
                f"output {index} is {have.dtype} {list(have.shape)} "
                f"instead of {want.dtype} {list(want.shape)}"
            )
        elif not _close(want, have):
            return f"output {index} has other values"
    return None


def run_sample(module: Callable[..., object], sample: Sample) -> Outputs:
    """One call in inference mode, with the same random numbers every time."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return flatten(module(*sample))


def _close(want: torch.Tensor, have: torch.Tensor) -> bool:
    if not want.is_floating_point():
        return torch.equal(want, have)
    tolerance = 1e-4 if want.dtype in (torch.float32, torch.float64) else 2e-2
    return torch.allclose(
        want.float(), have.float(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _encode(names: Sequence[str], sample: Sample) -> Example:
    example: Example = {}
    for name, value in zip(names, sample, strict=True):
        if isinstance(value, list):
            data = encode_bytes_elements([text.encode() for text in value])
        else:
            whole = value.detach().cpu().contiguous()
            # Torch's own way to bytes goes through numpy, which need not be installed.
            data = ctypes.string_at(whole.data_ptr(), whole.nbytes)
        example[name] = ExampleTensor(dtype_of(name, value), shape_of(value), data)
    return example


def _size(example: Example) -> int:
    return sum(len(tensor.data) for tensor in example.values())


def _is_strings(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _checked_value(index: int, value: object) -> Value:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, list) and _is_strings(value):
        return value
    raise ConfigError(
        f"output {index} of the module is a {type(value).__name__}; return tensors or lists of "
        "str, alone or in a tuple, a NamedTuple or a dict"
    )
