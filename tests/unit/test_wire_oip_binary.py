"""pyserve.wire.oip_binary: binary data in requests and answers, raw bodies, lying lengths."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_bodies import blob, body, numbers, read, read_binary, refused_binary

from pyserve.errors import InvalidInput
from pyserve.messages import (
    InferRequest,
    InferResponse,
    OutputTensor,
    RequestedOutput,
    Timing,
)
from pyserve.signature import DTYPES, TensorSpec
from pyserve.wire.oip_binary import (
    decode_raw,
    decode_request,
    encode_response,
    parse_header_length,
)


@pytest.mark.parametrize(("text", "length"), [(None, None), ("0", 0), ("123", 123), ("007", 7)])
def test_a_header_length_is_digits(text: str | None, length: int | None) -> None:
    assert parse_header_length(text) == length


@pytest.mark.parametrize(
    "text",
    ["", " ", "123abc", "-1", "+1", " 1", "1 ", "1.0", "1e2", "0x10", "١٢", "²", "9" * 30, "1_0"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="Inference-Header-Content-Length"):
        parse_header_length(text)


@pytest.mark.parametrize("length", [-1, 10**9, 2**64])
def test_a_header_length_beyond_the_body_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"is {length}, the body has 9 bytes"):
        decode_request(b"x" * 9, length, model="m", version=None)


def test_a_header_length_that_cuts_the_json_is_refused() -> None:
    header = body(blob(4))
    for length in (0, 1, len(header) - 1, len(header) + 1):
        with pytest.raises(InvalidInput, match="not valid JSON"):
            decode_request(header + bytes(4), length, model="m", version=None)


def test_tensors_are_views_on_the_body_in_the_order_of_the_inputs() -> None:
    header = body(blob(8, name="b"), numbers(name="j"), blob(4, name="a"), blob(0, name="e"))
    whole = header + b"bbbbbbbbaaaa"
    request = decode_request(whole, len(header), model="m", version="3")
    views = {one.name: one.data for one in request.inputs}
    assert list(views) == ["b", "j", "a", "e"]
    for name, expected in (("b", b"bbbbbbbb"), ("a", b"aaaa"), ("e", b"")):
        view = views[name]
        assert isinstance(view, memoryview)
        assert view.obj is whole
        assert view == expected
    assert (request.model, request.version) == ("m", "3")


@pytest.mark.parametrize("datatype", list(DTYPES))
def test_every_datatype_travels_as_its_bytes(datatype: str) -> None:
    size = DTYPES[datatype].size
    data = bytes(range(3 * size)) if size else b"\1\0\0\0a\0\0\0\0\2\0\0\0bc"
    header = body(blob(len(data), datatype=datatype, shape=[1, 3]))
    (tensor,) = read_binary(header, data).inputs
    assert (tensor.datatype, tensor.shape, tensor.data) == (datatype, (1, 3), data)


def test_a_body_that_is_cut_short_is_refused_at_every_length() -> None:
    header, data = body(blob(8, name="a"), blob(8, name="b")), bytes(16)
    whole = header + data
    for size in range(len(whole)):
        with pytest.raises(InvalidInput):
            decode_request(whole[:size], len(header), model="m", version=None)


def test_bytes_that_belong_to_no_input_are_refused() -> None:
    assert "1 bytes that belong to no input" in refused_binary(body(blob(8)), bytes(9))
    assert "4 bytes that belong to no input" in refused_binary(body(numbers()), bytes(4))
    assert "belong to no input" in refused_binary(body(), b"x")


@pytest.mark.parametrize("size", [0, 3, 15, 17, 20, 2**40, 2**64, 10**30])
def test_a_size_that_disagrees_with_the_shape_is_refused(size: int) -> None:
    message = refused_binary(body(blob(size, shape=[1, 4])), bytes(16))
    assert message.endswith("expected 16 for shape [1, 4] of FP32")


@pytest.mark.parametrize("size", [-1, 1.5, "16", True, [16]])
def test_a_size_that_is_no_length_is_refused(size: Any) -> None:
    header = body(blob(16, parameters={"binary_data_size": size}))
    assert refused_binary(header, bytes(16)).startswith("the request is not")


@pytest.mark.parametrize(
    "shape",
    [[65536, 65537], [2**62, 4], [2**62, 2**62], [0, 2**62, 2**62], [-4], [-2, -2], [1] * 100],
)
def test_shapes_that_overflow_are_refused(shape: list[int]) -> None:
    for datatype in ("FP32", "BYTES", "FP64"):
        assert refused_binary(body(blob(16, shape=shape, datatype=datatype)), bytes(16))


def test_empty_and_scalar_tensors_are_read() -> None:
    assert read_binary(body(blob(4, shape=[])), bytes(4)).inputs[0].shape == ()
    assert read_binary(body(blob(0, shape=[0, 2**62])), b"").inputs[0].shape == (0, 2**62)


def test_bytes_elements_need_room_for_their_lengths() -> None:
    message = refused_binary(body(blob(8, datatype="BYTES", shape=[3])), bytes(8))
    assert "expected at least 12" in message


def test_data_in_two_places_is_refused() -> None:
    message = refused_binary(body(blob(16, shape=[4], data=[1, 2, 3, 4])), bytes(16))
    assert message == 'input "x" has both data and binary_data_size'


@given(st.lists(st.binary(max_size=12), max_size=4), st.binary(max_size=3))
def test_blobs_are_cut_where_the_header_says_or_refused(blobs: list[bytes], rest: bytes) -> None:
    inputs = [
        blob(len(data), name=str(index), datatype="UINT8", shape=[len(data)])
        for index, data in enumerate(blobs)
    ]
    data = b"".join(blobs) + rest
    if rest:
        assert "belong to no input" in refused_binary(body(*inputs), data)
    else:
        assert [one.data for one in read_binary(body(*inputs), data).inputs] == blobs


# ---- raw bodies --------------------------------------------------------------------------------


def raw(data: bytes, dtype: str, shape: tuple[int, ...], batched: bool) -> InferRequest:
    spec = TensorSpec("x", dtype, shape)
    return decode_raw(data, model="m", version=None, spec=spec, batched=batched)


@pytest.mark.parametrize(
    ("length", "shape", "batched", "expected"),
    [
        (16, (4,), False, (4,)),
        (16, (4,), True, (1, 4)),
        (48, (4,), True, (3, 4)),
        (48, (-1, 4), False, (3, 4)),
        (48, (-1, 4), True, (1, 3, 4)),
        (0, (-1,), False, (0,)),
        (0, (4,), True, (0, 4)),
        (4, (), False, ()),
        (8, (), True, (2,)),
        (0, (0, 4), False, (0, 4)),
    ],
)
def test_the_shape_of_a_raw_body_follows_from_its_length(
    length: int, shape: tuple[int, ...], batched: bool, expected: tuple[int, ...]
) -> None:
    data = bytes(length)
    request = raw(data, "FP32", shape, batched)
    (tensor,) = request.inputs
    assert tensor == ("x", "FP32", expected, data)
    assert tensor.data is data
    assert request.binary_default
    assert request.outputs is None


@pytest.mark.parametrize(
    ("length", "shape", "batched"),
    [
        (15, (4,), False),
        (32, (4,), False),
        (0, (4,), False),
        (15, (4,), True),
        (20, (-1, 4), False),
        (16, (-1, -1), False),
        (4, (0, 4), False),
        (4, (0,), True),
        (4, (-1, 0), False),
    ],
)
def test_a_raw_body_of_no_certain_shape_is_refused(
    length: int, shape: tuple[int, ...], batched: bool
) -> None:
    with pytest.raises(InvalidInput):
        raw(bytes(length), "FP32", shape, batched)


@pytest.mark.parametrize("shape", [(1,), (-1,), (1, 1), ()])
@pytest.mark.parametrize("batched", [False, True])
def test_a_raw_string_is_one_element(shape: tuple[int, ...], batched: bool) -> None:
    (tensor,) = raw(b"words", "BYTES", shape, batched).inputs
    assert tensor.data == b"\5\0\0\0words"
    assert tensor.shape == (1,) * (len(shape) + batched)


def test_a_raw_body_holds_no_more_than_one_string() -> None:
    with pytest.raises(InvalidInput, match="one string"):
        raw(b"words", "BYTES", (2,), False)


# ---- answers -----------------------------------------------------------------------------------

TIMING = Timing(0, 1, 0, 0, 0)
FLOATS = OutputTensor("y", "FP32", (1, 2), struct.pack("<2f", 1.5, -2))
WORDS = OutputTensor("w", "BYTES", (2,), b"\1\0\0\0a\0\0\0\0")


def answer(
    outputs: list[OutputTensor],
    wanted: list[RequestedOutput] | None = None,
    *,
    binary: bool = False,
    id_: str = "",
) -> tuple[Any, bytes, int | None]:
    """The JSON, the binary data behind it, and the header length of the answer."""
    request = InferRequest(
        model="m", version=None, inputs=[], outputs=wanted, binary_default=binary
    )
    content, length = encode_response(InferResponse("m", "2", id_, outputs, TIMING), request)
    return json.loads(content[:length]), b"" if length is None else content[length:], length


def test_an_answer_in_json_has_no_header_length() -> None:
    document, data, length = answer([FLOATS, WORDS], id_='7"é')
    assert (data, length) == (b"", None)
    assert document == {
        "model_name": "m",
        "model_version": "2",
        "id": '7"é',
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2]},
            {"name": "w", "datatype": "BYTES", "shape": [2], "data": ["a", ""]},
        ],
    }


def test_an_id_comes_back_only_when_given() -> None:
    assert "id" not in answer([FLOATS])[0]


def test_binary_outputs_follow_in_order() -> None:
    document, data, length = answer([FLOATS, WORDS], binary=True)
    assert data == FLOATS.data + WORDS.data
    assert length is not None
    assert [one["parameters"]["binary_data_size"] for one in document["outputs"]] == [8, 9]
    assert all("data" not in one for one in document["outputs"])


def test_each_output_comes_in_the_form_it_was_asked_for() -> None:
    wanted = [RequestedOutput("w", True), RequestedOutput("y", False)]
    document, data, _ = answer([FLOATS, WORDS], wanted, binary=True)
    assert data == WORDS.data
    assert document["outputs"][0]["data"] == [1.5, -2]
    assert document["outputs"][1]["parameters"] == {"binary_data_size": 9}


def test_an_answer_may_be_empty() -> None:
    assert answer([])[0]["outputs"] == []
    empty = OutputTensor("y", "FP32", (0, 4), b"")
    document, data, length = answer([empty], binary=True)
    assert data == b""
    assert length is not None
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 0}
    assert answer([empty])[0]["outputs"][0]["data"] == []


@given(
    st.lists(st.tuples(st.text(), st.binary(max_size=20), st.booleans()), unique_by=lambda x: x[0]),
    st.text(),
)
def test_an_answer_reads_back_whatever_its_names(
    outputs: list[tuple[str, bytes, bool]], id_: str
) -> None:
    tensors = [OutputTensor(name, "UINT8", (len(data),), data) for name, data, _ in outputs]
    wanted = [RequestedOutput(name, binary) for name, _, binary in outputs]
    document, data, _ = answer(tensors, wanted, id_=id_)
    assert document.get("id", "") == id_
    for (name, expected, binary), one in zip(outputs, document["outputs"], strict=True):
        assert one["name"] == name
        if binary:
            size = one["parameters"]["binary_data_size"]
            got, data = data[:size], data[size:]
            assert got == expected
        else:
            assert bytes(one["data"]) == expected
    assert data == b""


def test_what_an_answer_sends_a_request_can_take() -> None:
    request = InferRequest(model="m", version=None, inputs=[], binary_default=True)
    response = InferResponse("m", "1", "", [FLOATS, WORDS], TIMING)
    content, length = encode_response(response, request)
    assert length is not None
    echoed = content[:length].replace(b'"outputs"', b'"inputs"')
    inputs = read_binary(echoed, content[length:]).inputs
    assert [tuple(one) for one in inputs] == [tuple(FLOATS), tuple(WORDS)]
    text, _ = encode_response(response, read(body()))
    again = read(text.replace(b'"outputs"', b'"inputs"')).inputs
    assert [bytes(one.data) for one in again] == [FLOATS.data, WORDS.data]
