"""One row as bytes, and the first number of an answer."""

from __future__ import annotations

import struct

import pytest

from pyserve.errors import InvalidInput
from pyserve.messages import InputTensor, OutputTensor
from pyserve.signature import TensorSpec
from pyserve.wire.rows import first_number, row_tensor

NUMBERS = [
    ("BOOL", "<?", True, 1.0),
    ("UINT8", "<B", 255, 255.0),
    ("INT8", "<b", -3, -3.0),
    ("UINT16", "<H", 65535, 65535.0),
    ("INT16", "<h", -300, -300.0),
    ("UINT32", "<I", 2**32 - 1, float(2**32 - 1)),
    ("INT32", "<i", -7, -7.0),
    ("UINT64", "<Q", 2**63, float(2**63)),
    ("INT64", "<q", -(2**40), float(-(2**40))),
    ("FP16", "<e", 1.5, 1.5),
    ("FP32", "<f", 0.25, 0.25),
    ("FP64", "<d", 0.1, 0.1),
]


@pytest.mark.parametrize(("dtype", "code", "value", "expected"), NUMBERS)
def test_the_first_number_is_read_in_every_dtype(
    dtype: str, code: str, value: float, expected: float
) -> None:
    data = struct.pack(code, value) + bytes(8)
    assert first_number(OutputTensor("y", dtype, (2,), data)) == expected


def test_the_first_number_of_bf16_is_the_upper_half_of_a_float() -> None:
    data = struct.pack("<f", -2.5)[2:]
    assert first_number(OutputTensor("y", "BF16", (1,), memoryview(data))) == -2.5


@pytest.mark.parametrize(("dtype", "data"), [("FP32", b""), ("BYTES", b"\x01\0\0\0a")])
def test_an_output_without_a_number_is_refused(dtype: str, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="number"):
        first_number(OutputTensor("y", dtype, (0,), data))


def test_a_row_gets_the_batch_dimension_where_there_is_one() -> None:
    spec = TensorSpec("x", "FP32", (2, 2))
    data = bytes(16)
    assert row_tensor(data, spec, batched=True) == InputTensor("x", "FP32", (1, 2, 2), data)
    assert row_tensor(data, spec, batched=False) == InputTensor("x", "FP32", (2, 2), data)


def test_one_open_size_follows_from_the_length() -> None:
    spec = TensorSpec("x", "INT64", (3, -1))
    assert row_tensor(bytes(48), spec, batched=True).shape == (1, 3, 2)


def test_bytes_are_one_string() -> None:
    spec = TensorSpec("text", "BYTES", (-1,))
    tensor = row_tensor(b"hello", spec, batched=False)
    assert tensor == InputTensor("text", "BYTES", (1,), b"\x05\0\0\0hello")


@pytest.mark.parametrize(
    ("dtype", "shape", "length", "said"),
    [
        ("FP32", (4,), 12, "12 bytes, expected 16 "),
        ("FP32", (4,), 32, "32 bytes, expected 16 "),
        ("FP32", (2, -1), 12, "12 bytes, expected a multiple of 8 "),
        ("FP32", (-1, -1), 16, "sizes open"),
        ("FP32", (0, -1), 16, "multiple of 0"),
        ("BYTES", (2,), 16, "one string"),
    ],
)
def test_data_that_is_no_row_is_refused(
    dtype: str, shape: tuple[int, ...], length: int, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        row_tensor(bytes(length), TensorSpec("x", dtype, shape), batched=True)
