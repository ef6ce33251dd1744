"""pyserve.classification: the largest of each row, by class."""

import asyncio
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserve.classification import classified, classify
from pyserve.errors import InvalidInput
from pyserve.messages import OutputTensor
from pyserve.signature import DTYPES, decode_bytes_elements

NUMBERS = [name for name, info in DTYPES.items() if info.numpy and name != "BOOL"]


def output(values: Any, datatype: str = "FP32") -> OutputTensor:
    array = np.array(values, DTYPES[datatype].numpy)
    return OutputTensor("y", datatype, array.shape, array.tobytes())


def strings(tensor: OutputTensor) -> list[str]:
    assert tensor.datatype == "BYTES"
    return [one.decode() for one in decode_bytes_elements(bytes(tensor.data))]


def test_each_row_of_a_batch_has_its_own_classes() -> None:
    found = classify(output([[1, 5, 10, 4], [3, 2, 1, 0]]), 2, (), batched=True)
    assert (found.name, found.shape) == ("y", (2, 2))
    assert strings(found) == ["10.000000:2", "5.000000:1", "3.000000:0", "2.000000:1"]


def test_without_a_batch_all_elements_are_one_row() -> None:
    found = classify(output([[1, 5], [10, 4]]), 3, (), batched=False)
    assert found.shape == (3,)
    assert strings(found) == ["10.000000:2", "5.000000:1", "4.000000:3"]
    assert strings(classify(output(7.5), 3, (), batched=False)) == ["7.500000:0"]


def test_rows_of_several_dimensions_count_through() -> None:
    found = classify(output([[[1, 2], [4, 3]]]), 2, (), batched=True)
    assert strings(found) == ["4.000000:2", "3.000000:3"]


def test_labels_stand_behind_the_index_where_there_are_some() -> None:
    found = classify(output([[1, 5, 10]]), 9, ("cat", "", "chouëtte"), batched=True)
    assert strings(found) == ["10.000000:2:chouëtte", "5.000000:1", "1.000000:0:cat"]
    found = classify(output([[1, 5]]), 2, ("cat",), batched=True)
    assert strings(found) == ["5.000000:1", "1.000000:0:cat"]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_dtype_of_numbers_can_be_classified(datatype: str) -> None:
    kind = np.dtype(DTYPES[datatype].numpy)
    if kind.kind == "f":
        found = classify(output([[-1, 0.5, 2]], datatype), 3, (), batched=True)
        assert strings(found) == ["2.000000:2", "0.500000:1", "-1.000000:0"]
        return
    limits = np.iinfo(kind)
    found = classify(output([[limits.min, limits.max, 7]], datatype), 3, (), batched=True)
    assert strings(found) == [f"{limits.max}:1", "7:2", f"{limits.min}:0"]


def test_bf16_is_read_as_the_upper_half_of_a_float() -> None:
    halves = [struct.pack("<f", value)[2:] for value in (1.5, -2.0, 256.0)]
    tensor = OutputTensor("y", "BF16", (1, 3), b"".join(halves))
    found = classify(tensor, 3, (), batched=True)
    assert strings(found) == ["256.000000:2", "1.500000:0", "-2.000000:1"]


def test_of_equals_the_first_comes_first_and_nan_comes_last() -> None:
    nan, inf = float("nan"), float("inf")
    found = classify(output([[nan, 1, -inf, 1, inf, nan, -inf]]), 7, (), batched=True)
    order = [one.split(":")[1] for one in strings(found)]
    assert order == ["4", "1", "3", "2", "6", "0", "5"]
    found = classify(output([[2, 3, 3, 2]], "INT32"), 4, (), batched=True)
    assert strings(found) == ["3:1", "3:2", "2:0", "2:3"]


@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)])
def test_nothing_has_no_classes(shape: tuple[int, ...]) -> None:
    found = classify(OutputTensor("y", "FP32", shape, b""), 3, (), batched=True)
    assert found.shape[0] == shape[0]
    assert found.shape[1] == 0
    assert found.data == b""


@pytest.mark.parametrize("datatype", ["BYTES", "BOOL"])
def test_what_is_no_number_is_refused(datatype: str) -> None:
    with pytest.raises(InvalidInput, match=f"{datatype}: only numbers"):
        classify(OutputTensor("y", datatype, (1, 1), b"\0"), 1, (), batched=True)


def test_more_strings_than_memory_should_hold_are_refused() -> None:
    tensor = output(np.zeros((2, 600_000), "i1"), "INT8")
    assert classify(tensor, 1, (), batched=True).shape == (2, 1)
    with pytest.raises(InvalidInput, match="at most 1048576"):
        classify(tensor, 600_000, (), batched=True)


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=12) | st.lists(st.integers(-9, 9)),
    st.integers(1, 15),
)
def test_the_order_is_that_of_a_stable_sort(values: list[float], count: int) -> None:
    numbers = [float(np.float32(one)) for one in values]
    found = classify(output([values]), count, (), batched=True)
    ordered = sorted(
        enumerate(numbers), key=lambda one: (one[1] != one[1], -one[1] if one[1] == one[1] else 0)
    )
    assert strings(found) == [f"{value:f}:{index}" for index, value in ordered[:count]]


async def test_long_outputs_leave_the_event_loop_and_others_are_left_alone() -> None:
    long = output(np.arange(100_000, dtype="f4")[None])
    other = OutputTensor("z", "BOOL", (1,), b"\1")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    found = await classified([other, long], {"y": 1}, (), batched=True)
    counting.cancel()
    assert found[0] is other
    assert strings(found[1]) == ["99999.000000:99999"]
    assert turns > 1
