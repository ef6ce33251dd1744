"""pyserve.client.values: what callers hand in becomes tensors."""

import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from pyserve.client.metadata import ModelMetadata, TensorMetadata
from pyserve.client.values import as_they_are, bind, from_array
from pyserve.errors import InvalidInput
from pyserve.messages import InputTensor
from pyserve.signature import DTYPES, decode_bytes_elements


def model(*inputs: tuple[str, str, tuple[int, ...]]) -> ModelMetadata:
    return ModelMetadata("m", inputs=tuple(TensorMetadata(*one) for one in inputs))


def bound(value: Any, datatype: str, shape: tuple[int, ...]) -> InputTensor:
    (tensor,) = bind(
        [value] if isinstance(value, np.ndarray) else value, model(("x", datatype, shape))
    )
    return tensor


NUMPY = [(name, info.numpy) for name, info in DTYPES.items() if info.numpy]


@pytest.mark.parametrize(("datatype", "name"), NUMPY)
def test_arrays_of_every_dtype_go_as_they_are(datatype: str, name: str) -> None:
    array = np.array([[0, 1, 1]], dtype=name)
    assert from_array("x", array) == InputTensor("x", datatype, (1, 3), array.tobytes())


@pytest.mark.parametrize(
    ("datatype", "name"), [(name, info.torch) for name, info in DTYPES.items() if info.torch]
)
def test_tensors_of_every_dtype_go_as_they_are(datatype: str, name: str) -> None:
    tensor = torch.tensor([[0, 1, 1]]).to(getattr(torch, name))
    sent = from_array("x", tensor)
    assert sent is not None
    assert sent[:3] == ("x", datatype, (1, 3))
    assert torch.equal(
        torch.frombuffer(bytearray(sent.data), dtype=tensor.dtype).reshape(1, 3), tensor
    )


def test_arrays_that_lie_in_other_ways_are_sent_in_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    large = np.arange(20000, dtype=np.float32).reshape(100, 200)
    for one in (array.T, array[:, ::2], array.astype(">f4"), large.T, large[::3], large):
        sent = from_array("x", one)
        assert sent is not None
        assert sent.datatype == "FP32"
        assert bytes(sent.data) == np.ascontiguousarray(one).astype("<f4").tobytes()
    transposed = from_array("x", torch.from_numpy(array).T)
    assert transposed is not None
    assert transposed.data == np.ascontiguousarray(array.T).tobytes()


def test_a_large_array_is_not_copied() -> None:
    array = np.zeros(10000, np.float32)
    sent = from_array("x", array)
    assert sent is not None
    array[0] = 1
    assert bytes(sent.data[:4]) == struct.pack("<f", 1)


def test_empty_arrays_scalars_and_tensors_with_gradients_are_sent() -> None:
    empty = from_array("x", np.zeros((2, 0), np.int64))
    assert empty == InputTensor("x", "INT64", (2, 0), b"")
    assert from_array("x", np.float32(1)) == InputTensor("x", "FP32", (), struct.pack("<f", 1))
    sent = from_array("x", torch.ones(1, requires_grad=True))
    assert sent == InputTensor("x", "FP32", (1,), struct.pack("<f", 1))


def test_bfloat16_of_ml_dtypes_is_bf16() -> None:
    array = np.array([1.5, -2], ml_dtypes.bfloat16)
    assert from_array("x", array) == InputTensor("x", "BF16", (2,), array.tobytes())


def test_arrays_of_strings_are_bytes() -> None:
    for array in (np.array(["a", "é"]), np.array([b"a", "é".encode()], dtype=object)):
        sent = from_array("x", array)
        assert sent is not None
        assert sent[:3] == ("x", "BYTES", (2,))
        assert decode_bytes_elements(bytes(sent.data)) == [b"a", "é".encode()]


def test_arrays_that_have_no_datatype_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"complex128.*float32"):
        from_array("x", np.zeros(2, complex))
    with pytest.raises(InvalidInput, match="cannot be sent"):
        from_array("x", torch.zeros(2, dtype=torch.complex64).to_sparse())
    with pytest.raises(InvalidInput, match="type int"):
        from_array("x", np.array([1, "a"], dtype=object))


def test_a_dict_of_arrays_needs_no_metadata_and_other_values_do() -> None:
    array = np.zeros(1, np.float32)
    assert as_they_are({"x": array}) == [InputTensor("x", "FP32", (1,), array.tobytes())]
    assert as_they_are([InputTensor("x", "BOOL", (1,), b"\1")]) is not None
    for inputs in ({"x": [1.0]}, {"x": array, "y": 1}, array, [array], (array,), [[1.0]], "text"):
        assert as_they_are(inputs) is None


@pytest.mark.parametrize(
    ("value", "datatype", "declared", "shape", "data"),
    [
        ([1, 2], "FP32", (-1, 2), (1, 2), struct.pack("<2f", 1, 2)),
        ([[1, 2], [3, 4]], "INT32", (-1, 2), (2, 2), struct.pack("<4i", 1, 2, 3, 4)),
        (5, "INT64", (), (), struct.pack("<q", 5)),
        (5, "INT64", (-1, 1), (1, 1), struct.pack("<q", 5)),
        (2**63, "UINT64", (1,), (1,), struct.pack("<Q", 2**63)),
        ([True, False], "BOOL", (2,), (2,), b"\1\0"),
        ([1, 0], "BOOL", (2,), (2,), b"\1\0"),
        ([1.5], "FP16", (1,), (1,), struct.pack("<e", 1.5)),
        ([1.5], "BF16", (1,), (1,), b"\xc0\x3f"),
        ([], "FP32", (-1,), (0,), b""),
        ("é", "BYTES", (-1, 1), (1, 1), b"\2\0\0\0\xc3\xa9"),
        (b"\xff\0", "BYTES", (1,), (1,), b"\2\0\0\0\xff\0"),
        (bytearray(b"\0"), "BYTES", (1,), (1,), b"\1\0\0\0\0"),
        (["a", b"b"], "BYTES", (-1,), (2,), b"\1\0\0\0a\1\0\0\0b"),
        ([1.5], "", (), (1,), struct.pack("<f", 1.5)),
        ([1], "", (), (1,), struct.pack("<q", 1)),
        ("a", "", (), (), b"\1\0\0\0a"),
    ],
)
def test_plain_values_take_the_declared_type_and_missing_dimensions(
    value: Any, datatype: str, declared: tuple[int, ...], shape: tuple[int, ...], data: bytes
) -> None:
    for tensor in (bound(value, datatype, declared), bound({"x": value}, datatype, declared)):
        assert tensor.shape == shape
        assert bytes(tensor.data) == data
        assert not datatype or tensor.datatype == datatype


@pytest.mark.parametrize(
    ("value", "datatype", "words"),
    [
        ([1.5], "INT64", "decimal point"),
        ([300], "UINT8", "out of its range"),
        ([-1], "UINT64", "out of its range"),
        ([2], "BOOL", "out of its range"),
        ("text", "FP32", "no number"),
        ([None], "FP32", "no number"),
        ([[1, 2], [3]], "FP32", '"x"'),
        ([1], "BYTES", "type int"),
        ([["a"], ["b", "c"]], "BYTES", '"x"'),
        ([2**80], "INT64", "no number"),
    ],
)
def test_values_that_do_not_fit_are_refused_not_changed(
    value: Any, datatype: str, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        bound({"x": value}, datatype, (-1,))


def test_positional_inputs_take_the_models_names() -> None:
    pair = model(("a", "FP32", (-1, 1)), ("b", "INT64", (-1, 1)))
    a, b = np.zeros((1, 1), np.float32), torch.ones(1, 1, dtype=torch.int64)
    for inputs in ((a, b), [a, b]):
        assert [one.name for one in bind(inputs, pair)] == ["a", "b"]
    plain = bind((0.5, 2), pair)
    assert [one.datatype for one in plain] == ["FP32", "INT64"]


def test_wrong_names_and_counts_say_what_was_expected() -> None:
    pair = model(("a", "FP32", (1,)), ("b", "FP32", (1,)))
    with pytest.raises(InvalidInput, match='no input "z", expected "a", "b"'):
        bind({"z": 1}, pair)
    with pytest.raises(InvalidInput, match=r'2 inputs \("a", "b"\), got 1'):
        bind([[1.0], [2.0]], pair)
    with pytest.raises(InvalidInput, match=r'one input \("x"\), got 2'):
        bind((1, 2), model(("x", "FP32", (1,))))


def test_rounding_to_bfloat16_is_torchs() -> None:
    values = [0.1, -3.14159, 1e38, 1e-40, float("inf"), float("nan"), 1.00390625, 1.01171875]
    expected = torch.tensor(values).to(torch.bfloat16)
    sent = bound({"x": values}, "BF16", (-1,))
    found = torch.frombuffer(bytearray(sent.data), dtype=torch.bfloat16)
    assert torch.equal(found[:5], expected[:5])
    assert bool(found[5].isnan())
    assert torch.equal(found[6:], expected[6:])
