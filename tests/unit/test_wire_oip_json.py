"""pyserve.wire.oip_json and tensors: requests in JSON, every datatype, every bad shape."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_bodies import Json, blob, body, numbers, read, refused

from pyserve.errors import InvalidInput
from pyserve.messages import OutputTensor
from pyserve.signature import DTYPES
from pyserve.wire.tensors import element_count, to_json


def data_of(one: Json) -> bytes:
    (tensor,) = read(body(one)).inputs
    return bytes(tensor.data)


def test_an_input_becomes_a_tensor_of_little_endian_bytes() -> None:
    (tensor,) = read(body(numbers(shape=[2, 2], data=[[1, 2], [3, 4.5]]))).inputs
    assert tensor[:3] == ("x", "FP32", (2, 2))
    assert bytes(tensor.data) == struct.pack("<4f", 1, 2, 3, 4.5)


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
def test_every_datatype_is_read(datatype: str) -> None:
    data = data_of(numbers(datatype=datatype, shape=[3], data=[1, 0, 1]))
    info = DTYPES[datatype]
    assert len(data) == 3 * info.size
    if info.numpy is not None:
        assert np.frombuffer(data, info.numpy).tolist() == [1, 0, 1]
    text = to_json(OutputTensor("y", datatype, (3,), data))
    assert json.loads(text) == [1, 0, 1]


def test_large_integers_do_not_go_through_double() -> None:
    values = [2**63 - 1, -(2**63), 2**53 + 1]
    data = data_of(numbers(datatype="INT64", shape=[3], data=values))
    assert list(struct.unpack("<3q", data)) == values


def test_strings_become_elements_with_their_length() -> None:
    data = data_of(numbers(datatype="BYTES", shape=[2, 2], data=[["a", ""], "é", ["b\0"]]))
    assert data == b"\1\0\0\0a\0\0\0\0\2\0\0\0\xc3\xa9\2\0\0\0b\0"


@given(st.lists(st.text()))
def test_strings_survive_the_round_trip(words: list[str]) -> None:
    data = data_of(numbers(datatype="BYTES", shape=[len(words)], data=words))
    assert json.loads(to_json(OutputTensor("y", "BYTES", (len(words),), data))) == words


@pytest.mark.parametrize("wrong", [1, None, True, {}, 1.5])
def test_elements_of_bytes_that_are_no_strings_are_refused(wrong: object) -> None:
    message = refused(body(numbers(datatype="BYTES", shape=[2], data=["a", wrong])))
    assert "element 1" in message
    assert "expected a string" in message


@pytest.mark.parametrize("data", [["a"], ["a", "b", "c"], [[], ["a"]]])
def test_the_number_of_strings_must_agree(data: list[str]) -> None:
    assert "expected 2 strings" in refused(body(numbers(datatype="BYTES", shape=[2], data=data)))


@pytest.mark.parametrize("data", [1, "1", True, {}, {"a": 1}])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "BOOL"])
def test_data_that_is_no_array_is_refused(data: object, datatype: str) -> None:
    assert 'input "x"' in refused(body(numbers(datatype=datatype, shape=[1], data=data)))


@pytest.mark.parametrize("data", [[1, 2, 3], [1, 2, 3, 4, 5], [[1, 2], [3]], []])
def test_the_number_of_elements_must_agree_with_the_shape(data: list[object]) -> None:
    assert 'input "x"' in refused(body(numbers(data=data)))


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"nan", b"1e39", b'"1"'])
def test_numbers_that_json_or_the_datatype_do_not_know_are_refused(literal: bytes) -> None:
    assert refused(body(numbers(data=[7, 7, 7, 7])).replace(b"[7", b"[" + literal))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("UINT8", 256),
        ("UINT8", -1),
        ("INT8", 128),
        ("INT32", 2**31),
        ("INT64", 2**63),
        ("UINT64", 2**64),
        ("INT32", 1.5),
        ("INT32", True),
        ("BOOL", 2),
        ("FP16", 65520),
        ("BF16", 3.4e38),
        ("FP64", 10**309),
    ],
)
def test_values_out_of_range_are_named(datatype: str, value: object) -> None:
    message = refused(body(numbers(datatype=datatype, shape=[1], data=[value])))
    assert message.startswith('input "x": element 0 is "')


@pytest.mark.parametrize(
    "shape",
    [
        [65536, 65537],
        [2**62],
        [2**62, 2],
        [2**62, 2**62],
        [0, 2**62, 2**62],
        [2**63],
        [10**30],
        [-1],
        [-1, -4],
        [4, -1],
        [0, -1],
        [1] * 65 + [4],
        [1] * 100,
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_shapes_that_lie_or_overflow_are_refused_before_anything_is_allocated(
    shape: list[int], datatype: str
) -> None:
    data: list[object] = ["a"] if datatype == "BYTES" else [1]
    assert 'input "x"' in refused(body(numbers(datatype=datatype, shape=shape, data=data)))


@pytest.mark.parametrize("shape", [[65536, 65537], [2**62], [2**62, 1], [3]])
def test_a_shape_that_its_data_cannot_fill_is_refused_by_the_length_of_the_text(
    shape: list[int],
) -> None:
    assert "its data is too short" in refused(body(numbers(shape=shape, data=[1])))


@pytest.mark.parametrize("shape", [4, "4", [1.0, 4], ["4"], [True, 4], [None], [[4]], None])
def test_a_shape_that_is_no_list_of_integers_is_refused(shape: object) -> None:
    text = json.dumps({"inputs": [{**numbers(), "shape": shape}]}).encode()
    assert "not as expected" in refused(text)


def test_scalars_and_empty_tensors_have_a_shape() -> None:
    assert data_of(numbers(shape=[], data=[5])) == struct.pack("<f", 5)
    for shape in ([0], [0, 2**62], [3, 0, 2]):
        assert data_of(numbers(shape=shape, data=[])) == b""
    assert data_of(numbers(datatype="BYTES", shape=[0], data=[])) == b""


def test_sixty_four_dimensions_are_the_most() -> None:
    assert element_count("x", (1,) * 64) == 1
    with pytest.raises(InvalidInput, match="65 dimensions, at most 64"):
        element_count("x", (1,) * 65)


def test_a_zero_does_not_hide_an_overflow() -> None:
    assert element_count("x", (0, 2**62)) == 0
    for shape in ((0, 2**62, 2**62), (2**62, 2**62, 0), (2**63, 0)):
        with pytest.raises(InvalidInput, match="more elements than 64 bits can count"):
            element_count("x", shape)


@given(st.lists(st.integers(-2, 2**63), max_size=70))
def test_an_element_count_is_exact_or_refused(shape: list[int]) -> None:
    nonzero = 1
    for size in shape:
        nonzero *= size or 1
    fits = len(shape) <= 64 and min(shape, default=0) >= 0 and nonzero < 2**63
    try:
        count = element_count("x", tuple(shape))
    except InvalidInput:
        assert not fits
        return
    assert fits
    assert count == (0 if 0 in shape else nonzero)


@pytest.mark.parametrize("datatype", ["", "fp32", "FLOAT", "FP8", "TYPE_FP32", "é" * 3000])
def test_an_unknown_datatype_is_refused_with_those_that_are_known(datatype: str) -> None:
    assert "expected one of BOOL" in refused(body(numbers(datatype=datatype)))


def test_binary_data_without_its_header_is_refused_with_a_hint() -> None:
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length"):
        read(body(blob(16)))


def test_an_input_without_data_is_refused() -> None:
    assert refused(body(numbers(data=None))) == 'input "x" has no data'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("datatype", "code"), [("FP32", "f"), ("FP64", "d"), ("FP16", "e")])
def test_outputs_that_json_cannot_carry_ask_for_binary(
    value: float, datatype: str, code: str
) -> None:
    output = OutputTensor("y", datatype, (2,), struct.pack(f"<2{code}", 0, value))
    with pytest.raises(InvalidInput, match=r'output "y": element 1 is .*ask for binary data'):
        to_json(output)


def test_strings_that_are_not_utf8_ask_for_binary() -> None:
    with pytest.raises(InvalidInput, match="ask for binary data"):
        to_json(OutputTensor("y", "BYTES", (1,), b"\1\0\0\0\xff"))
