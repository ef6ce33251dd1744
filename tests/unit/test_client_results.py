"""pyserve.client.results: outputs as arrays, classes, timing."""

import sys

import ml_dtypes
import numpy as np
import pytest
import torch

from pyserve.client.results import ClassScore, InferResult, parse_timing
from pyserve.errors import InvalidInput
from pyserve.messages import OutputTensor
from pyserve.signature import DTYPES, encode_bytes_elements


def result(*outputs: OutputTensor, timing: str = "") -> InferResult:
    return InferResult("m", "1", "", list(outputs), {"server-timing": timing})


def strings(name: str, shape: tuple[int, ...], *texts: str) -> OutputTensor:
    data = encode_bytes_elements([one.encode() for one in texts])
    return OutputTensor(name, "BYTES", shape, data)


@pytest.mark.parametrize(
    ("datatype", "name"), [(name, info.numpy) for name, info in DTYPES.items() if info.numpy]
)
def test_outputs_of_every_dtype_are_arrays_of_their_own(datatype: str, name: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype=name)
    # Odd, so that a view would be misaligned.
    view = memoryview(b"?" + array.tobytes())[1:]
    found = result(OutputTensor("y", datatype, (2, 2), view))["y"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert found.flags.writeable
    assert found.flags.owndata
    assert found.flags.aligned


def test_torch_tensors_are_made_without_a_warning_and_bf16_is_bfloat16() -> None:
    bits = np.array([1.5, -2], ml_dtypes.bfloat16).tobytes()
    found = result(
        OutputTensor("y", "FP32", (1,), np.float32(2).tobytes()),
        OutputTensor("b", "BF16", (2,), bits),
    )
    assert found.torch("y").tolist() == [2]
    assert found.torch("b").dtype == torch.bfloat16
    assert found.torch("b").tolist() == [1.5, -2]
    assert found["b"].dtype == ml_dtypes.bfloat16
    assert found["b"].tolist() == [1.5, -2]


def test_bf16_without_ml_dtypes_is_float32_of_the_same_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    found = result(OutputTensor("b", "BF16", (2,), b"\xc0\x3f\x00\xc0"))["b"]
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2]


def test_a_result_is_a_small_mapping_of_its_outputs() -> None:
    found = result(OutputTensor("a", "UINT8", (1,), b"\1"), OutputTensor("e", "FP32", (0, 3), b""))
    assert list(found) == ["a", "e"]
    assert len(found) == 2
    assert list(found.outputs) == ["a", "e"]
    assert found["e"].shape == (0, 3)
    assert found["a"] is found["a"]
    assert "a UINT8[1]" in repr(found)
    with pytest.raises(InvalidInput, match=r'no output "z".*"a", "e"'):
        found["z"]


def test_bytes_are_bytes_and_text_for_who_asks() -> None:
    found = result(strings("s", (2, 1), "é", ""), OutputTensor("n", "UINT8", (1,), b"\1"))
    assert found["s"].tolist() == [["é".encode()], [b""]]
    assert found.strings("s").tolist() == [["é"], [""]]
    with pytest.raises(InvalidInput, match="not hold text"):
        found.strings("n")
    with pytest.raises(InvalidInput, match="BYTES"):
        found.torch("s")


def test_classes_are_read_row_by_row_with_labels_that_hold_colons() -> None:
    found = result(
        strings("y", (2, 2), "0.75:3:cat: big", "0.25:1", "9:0:dog", "-1:2:"),
        strings("flat", (1,), "1.5:7"),
        strings("s", (1,), "hello"),
    )
    assert found.classes("y") == [
        [ClassScore(0.75, 3, "cat: big"), ClassScore(0.25, 1, "")],
        [ClassScore(9.0, 0, "dog"), ClassScore(-1.0, 2, "")],
    ]
    assert found.classes("flat") == [[ClassScore(1.5, 7, "")]]
    with pytest.raises(InvalidInput, match="classification"):
        found.classes("s")


def test_timing_is_seconds_by_stage_and_the_batch() -> None:
    timing = parse_timing('parse;dur=0.5, queue;dur=2, batch;desc=8, cache;desc="x", odd;dur=x')
    assert timing.seconds == {"parse": 0.0005, "queue": 0.002}
    assert timing.batch_size == 8
    assert result(timing="compute;dur=1").timing.seconds == {"compute": 0.001}
    assert result().timing == ({}, None)
