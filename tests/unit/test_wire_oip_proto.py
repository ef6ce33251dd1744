"""Messages of gRPC to requests, and answers to messages."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserve.errors import InvalidInput
from pyserve.messages import (
    InferRequest,
    InferResponse,
    InputTensor,
    OutputTensor,
    Region,
    RequestedOutput,
    Timing,
)
from pyserve.protos import message
from pyserve.signature import decode_bytes_elements, encode_bytes_elements
from pyserve.wire.oip_proto import (
    decode_request,
    encode_response,
    encode_stream_error,
    encode_stream_response,
    request_id,
    wants_final,
)
from pyserve.wire.proto_bytes import Parts, split, varint

Request = message("inference.ModelInferRequest")
Response = message("inference.ModelInferResponse")
StreamResponse = message("inference.ModelStreamInferResponse")

FLOATS = struct.pack("<4f", 1, 2, 3, 4)
TIMING = Timing(1, 2, 3, 4, 5)

TYPED = {
    "BOOL": ("bool_contents", "?", st.booleans()),
    "INT8": ("int_contents", "b", st.integers(-(2**7), 2**7 - 1)),
    "INT16": ("int_contents", "h", st.integers(-(2**15), 2**15 - 1)),
    "INT32": ("int_contents", "i", st.integers(-(2**31), 2**31 - 1)),
    "INT64": ("int64_contents", "q", st.integers(-(2**63), 2**63 - 1)),
    "UINT8": ("uint_contents", "B", st.integers(0, 2**8 - 1)),
    "UINT16": ("uint_contents", "H", st.integers(0, 2**16 - 1)),
    "UINT32": ("uint_contents", "I", st.integers(0, 2**32 - 1)),
    "UINT64": ("uint64_contents", "Q", st.integers(0, 2**64 - 1)),
    "FP32": ("fp32_contents", "f", st.floats(width=32, allow_nan=False)),
    "FP64": ("fp64_contents", "d", st.floats(allow_nan=False)),
}


def build(**fields: str) -> Any:
    return Request(**({"model_name": "m"} | fields))


def add(
    request: Any,
    name: str = "x",
    datatype: str = "FP32",
    shape: tuple[int, ...] = (1, 4),
    raw: bytes | None = None,
) -> Any:
    tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return tensor


def decode(request: Any, deadline_ns: int = 0) -> InferRequest:
    return decode_request(split(request.SerializeToString()), deadline_ns=deadline_ns)


def refused(request: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode(request)
    return caught.value.message


def plain(request: InferRequest) -> list[InputTensor]:
    """The inputs with their data as bytes, whatever they came as."""
    return [one._replace(data=bytes(one.data)) for one in request.inputs]


# --- typed contents -----------------------------------------------------------------------------


@given(st.sampled_from(sorted(TYPED)), st.data())
def test_typed_contents_are_what_struct_packs(datatype: str, data: st.DataObject) -> None:
    field, code, elements = TYPED[datatype]
    values = data.draw(st.lists(elements, max_size=200))
    request = build()
    tensor = add(request, datatype=datatype, shape=(len(values),))
    getattr(tensor.contents, field).extend(values)
    expected = struct.pack(f"<{len(values)}{code}", *values)
    assert plain(decode(request)) == [InputTensor("x", datatype, (len(values),), expected)]


def test_a_nan_keeps_its_bits() -> None:
    request = build()
    add(request, shape=(1,)).contents.fp32_contents.append(float("nan"))
    (tensor,) = plain(decode(request))
    assert struct.unpack("<f", tensor.data) != struct.unpack("<f", tensor.data)


@given(st.lists(st.binary(max_size=20)))
def test_strings_get_their_lengths(values: list[bytes]) -> None:
    request = build()
    add(request, datatype="BYTES", shape=(len(values),)).contents.bytes_contents.extend(values)
    (tensor,) = decode(request).inputs
    assert decode_bytes_elements(bytes(tensor.data)) == values


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", 128), ("INT8", -129), ("INT16", 2**15), ("UINT8", 256), ("UINT16", 2**16)],
)
def test_an_integer_out_of_range_is_refused(datatype: str, value: int) -> None:
    request = build()
    tensor = add(request, datatype=datatype, shape=(1,))
    getattr(tensor.contents, TYPED[datatype][0]).append(value)
    assert "out of the range of " + datatype in refused(request)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_have_no_typed_contents(datatype: str) -> None:
    request = build()
    add(request, datatype=datatype).contents.fp32_contents.extend([1, 2, 3, 4])
    assert "raw_input_contents" in refused(request)


def test_the_field_of_another_datatype_is_refused() -> None:
    request = build()
    add(request).contents.fp64_contents.extend([1, 2, 3, 4])
    assert refused(request) == 'input "x" has fp64_contents, expected fp32_contents for FP32'


def test_two_fields_are_refused() -> None:
    request = build()
    tensor = add(request)
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    tensor.contents.int_contents.append(1)
    assert "int_contents" in refused(request)


@pytest.mark.parametrize("shape", [(1, 3), (5,), (2**31, 2**31), ()])
def test_a_shape_that_disagrees_with_the_elements_is_refused(shape: tuple[int, ...]) -> None:
    request = build()
    add(request, shape=shape).contents.fp32_contents.extend([1, 2, 3, 4])
    assert "has 4 elements in fp32_contents, expected " in refused(request)


def test_an_input_without_data_is_refused() -> None:
    request = build()
    add(request)
    assert "has no data: expected 4 elements in fp32_contents" in refused(request)


def test_no_elements_are_needed_where_there_are_none() -> None:
    request = build()
    add(request, shape=(0, 4))
    assert plain(decode(request)) == [InputTensor("x", "FP32", (0, 4), b"")]


def test_fields_that_nobody_knows_do_not_end_up_in_the_data() -> None:
    request = build()
    tensor = add(request)
    tensor.contents.MergeFromString(b"\x92\x03\x02hi")  # field 50
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    assert plain(decode(request))[0].data == FLOATS


# --- raw contents -------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=5), st.integers(0, 40_000), st.text())
def test_raw_contents_are_taken_as_they_are(blobs: list[bytes], pad: int, name: str) -> None:
    request = build(id=name)
    blobs[-1] += bytes(pad)
    for index, blob in enumerate(blobs):
        add(request, f"x{index}", "UINT8", (len(blob),), blob)
    decoded = decode(request)
    assert decoded.id == name
    assert plain(decoded) == [
        InputTensor(f"x{index}", "UINT8", (len(blob),), blob) for index, blob in enumerate(blobs)
    ]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_travel_raw(datatype: str) -> None:
    request = build()
    add(request, datatype=datatype, shape=(2,), raw=b"\0\1\2\3")
    assert plain(decode(request)) == [InputTensor("x", datatype, (2,), b"\0\1\2\3")]


def test_large_raw_contents_are_views_on_the_message() -> None:
    request = build()
    add(request, shape=(4096 * 8,), raw=bytes(4096 * 32))
    add(request, "y", shape=(4,), raw=FLOATS)
    text = request.SerializeToString()
    parts = split(text)
    assert parts.blobs is not None
    assert [len(one) for one in parts.blobs] == [4096 * 32, 16]
    assert all(one.obj is text for one in parts.blobs)
    assert b"".join((parts.skeleton, *parts.blobs)).count(0) >= 4096 * 32
    assert len(parts.skeleton) < 100
    assert plain(decode_request(parts))[1] == InputTensor("y", "FP32", (4,), FLOATS)


@given(st.binary(max_size=64), st.integers(0, 40_000))
def test_splitting_never_changes_what_is_refused(tail: bytes, cut: int) -> None:
    """Whatever follows a large message, or is missing from it, reads the same in one piece."""
    request = build(id="7")
    add(request, datatype="UINT8", shape=(20_000,), raw=bytes(20_000))
    text = (request.SerializeToString() + tail)[: 20_100 + len(tail) - cut % 100]

    def outcome(parts: Parts) -> object:
        try:
            decoded = decode_request(parts)
        except InvalidInput as error:
            return error.message
        return decoded.id, decoded.model, plain(decoded), decoded.outputs

    assert outcome(split(text)) == outcome(Parts(text, None))


def test_a_message_of_a_great_many_fields_is_left_to_protobuf() -> None:
    text = build().SerializeToString() + Request(id="7").SerializeToString() * 10_000
    assert split(text) == Parts(text, None)
    assert decode_request(split(text)).id == "7"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_of_raw_contents_is_refused(count: int) -> None:
    request = build()
    for name in ("a", "b"):
        add(request, name)
    request.raw_input_contents.extend([FLOATS] * count)
    if count:
        assert refused(request) == (
            f"raw_input_contents has {count} entries, expected 2: one for each input"
        )
    else:
        assert "has no data" in refused(request)


def test_contents_beside_raw_contents_are_refused() -> None:
    request = build()
    add(request, raw=FLOATS).contents.fp32_contents.extend([1, 2, 3, 4])
    assert "has contents beside raw_input_contents" in refused(request)


@pytest.mark.parametrize(
    ("datatype", "shape", "said"),
    [
        ("FP32", (1, 3), "expected 12 for shape"),
        ("FP64", (1, 4), "expected 32 for shape"),
        ("BYTES", (5,), "expected at least 20 for shape"),
        ("FP32", (-1, 4), "no negative dimension"),
        ("FP32", (2**31, 2**31, 2**31), "more elements than 64 bits can count"),
        ("FP32", (0, 2**62, 2**62), "more elements than 64 bits can count"),
        ("FP32", (1,) * 65, "65 dimensions"),
        ("FP33", (1, 4), 'datatype "FP33"'),
        ("", (1, 4), 'datatype ""'),
    ],
)
def test_raw_contents_must_agree_with_shape_and_datatype(
    datatype: str, shape: tuple[int, ...], said: str
) -> None:
    request = build()
    add(request, datatype=datatype, shape=shape, raw=FLOATS)
    assert said in refused(request)


def test_a_name_that_comes_twice_is_refused() -> None:
    request = build()
    add(request, raw=FLOATS)
    add(request, raw=FLOATS)
    assert refused(request) == 'input "x" is given more than once'
    request = build()
    add(request, raw=FLOATS)
    request.outputs.add(name="y")
    request.outputs.add(name="y")
    assert refused(request) == 'output "y" is given more than once'


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x0a\x05abc", b"\x0a\x02\xc3\x28"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"not a valid inference\.ModelInferRequest"):
        decode_request(split(data))
    assert request_id(split(data)) == ""
    assert not wants_final(split(data))


# --- the rest of a request ----------------------------------------------------------------------


def test_names_become_the_request() -> None:
    request = build(model_version="3", id="é")
    add(request, raw=FLOATS)
    decoded = decode(request)
    assert (decoded.model, decoded.version, decoded.id) == ("m", "3", "é")
    assert decoded.outputs is None
    assert decoded.deadline_ns == 0
    assert decode(build()).version is None


def test_the_earlier_of_both_deadlines_counts() -> None:
    request = build()
    request.parameters["timeout"].int64_param = 1_000_000
    request.parameters["priority"].uint64_param = 2
    before = time.monotonic_ns()
    alone = decode(request)
    assert before + 10**9 <= alone.deadline_ns <= time.monotonic_ns() + 10**9
    assert (alone.timeout_us, alone.priority) == (1_000_000, 2)
    assert decode(request, before + 5).deadline_ns == before + 5
    assert decode(request, before + 10**12).deadline_ns < before + 10**11
    assert decode(build(), 17).deadline_ns == 17


def test_a_timeout_beyond_all_time_is_no_overflow() -> None:
    request = build()
    request.parameters["timeout"].uint64_param = 2**64 - 1
    assert decode(request).deadline_ns == 2**63 - 1


@pytest.mark.parametrize(
    "set_value",
    [
        lambda one: setattr(one, "int64_param", -1),
        lambda one: setattr(one, "string_param", "5"),
        lambda one: setattr(one, "bool_param", True),
        lambda one: setattr(one, "double_param", 5.0),
    ],
)
def test_a_timeout_that_is_no_count_is_refused(set_value: Any) -> None:
    request = build()
    set_value(request.parameters["timeout"])
    assert "expected microseconds: a whole number, 0 for none" in refused(request)


@pytest.mark.parametrize(
    "set_value",
    [
        lambda one: setattr(one, "int64_param", -1),
        lambda one: setattr(one, "uint64_param", 4),
        lambda one: setattr(one, "uint64_param", 2**64 - 1),
        lambda one: setattr(one, "string_param", "1"),
        lambda one: setattr(one, "bool_param", True),
        lambda one: setattr(one, "double_param", 1.0),
    ],
)
def test_a_priority_that_is_none_is_refused(set_value: Any) -> None:
    request = build()
    set_value(request.parameters["priority"])
    assert "expected 1 (high), 2 (normal), 3 (low) or 0 (the model's)" in refused(request)


@pytest.mark.parametrize("key", ["timeout", "priority"])
def test_a_parameter_without_a_value_is_taken_for_absent(key: str) -> None:
    request = build()
    request.parameters[key].SetInParent()
    assert (decode(request).timeout_us, decode(request).priority) == (0, 0)


def test_shared_memory_stands_in_for_the_data() -> None:
    request = build()
    add(request, "a", raw=FLOATS)
    tensor = add(request, "b")
    tensor.parameters["shared_memory_region"].string_param = "region"
    tensor.parameters["shared_memory_byte_size"].int64_param = 16
    tensor.parameters["shared_memory_offset"].int64_param = 8
    decoded = decode(request)
    assert decoded.regions == {"b": Region("region", 8, 16)}
    assert plain(decoded)[1] == InputTensor("b", "FP32", (1, 4), b"")
    tensor.parameters["shared_memory_byte_size"].int64_param = 15
    assert "shared_memory_byte_size 15, expected 16" in refused(request)
    del tensor.parameters["shared_memory_byte_size"]
    assert "needs shared_memory_byte_size" in refused(request)
    tensor.parameters["shared_memory_region"].int64_param = 1
    assert "shared_memory_region is not a string" in refused(request)


def test_contents_beside_shared_memory_are_refused() -> None:
    request = build()
    tensor = add(request)
    tensor.parameters["shared_memory_region"].string_param = "region"
    tensor.parameters["shared_memory_byte_size"].int64_param = 16
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    assert "both contents and shared memory" in refused(request)


def test_outputs_say_how_they_are_wanted() -> None:
    request = build()
    request.outputs.add(name="a")
    request.outputs.add(name="b").parameters["classification"].int64_param = 3
    parameters = request.outputs.add(name="c").parameters
    parameters["shared_memory_region"].string_param = "region"
    parameters["shared_memory_byte_size"].int64_param = 16
    assert decode(request).outputs == [
        RequestedOutput("a", True),
        RequestedOutput("b", True, 3),
        RequestedOutput("c", True, 0, Region("region", 0, 16)),
    ]


# --- answers ------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.lists(st.integers(0, 9)), st.binary(max_size=300)),
        max_size=4,
    ),
    st.text(),
    st.text(),
)
def test_answers_are_what_protobuf_would_write(
    outputs: list[tuple[str, list[int], bytes]], name: str, ident: str
) -> None:
    expected = Response(model_name=name, model_version="2", id=ident)
    tensors = []
    for output, shape, data in outputs:
        expected.outputs.add(name=output, datatype="UINT8", shape=shape)
        expected.raw_output_contents.append(data)
        tensors.append(OutputTensor(output, "UINT8", tuple(shape), memoryview(data)))
    text = encode_response(InferResponse(name, "2", ident, tensors, TIMING))
    assert Response.FromString(text) == expected


def test_an_output_in_shared_memory_says_where_it_is() -> None:
    tensors = [OutputTensor("a", "FP32", (4,), b""), OutputTensor("b", "FP32", (4,), FLOATS)]
    regions = {"a": Region("region", 8, 16)}
    answer = Response.FromString(
        encode_response(InferResponse("m", "1", "", tensors, TIMING, regions))
    )
    parameters = answer.outputs[0].parameters
    assert parameters["shared_memory_region"].string_param == "region"
    assert parameters["shared_memory_byte_size"].int64_param == 16
    assert parameters["shared_memory_offset"].int64_param == 8
    assert not answer.outputs[1].parameters
    assert list(answer.raw_output_contents) == [b"", FLOATS]


def test_a_stream_carries_answers_and_errors() -> None:
    tensors = [OutputTensor("y", "BYTES", (1,), encode_bytes_elements([b"a" * 200]))]
    answer = encode_response(InferResponse("m", "1", "7", tensors, TIMING), final=True)
    carried = StreamResponse.FromString(encode_stream_response(answer))
    assert carried.error_message == ""
    assert carried.infer_response == Response.FromString(answer)
    assert carried.infer_response.parameters["triton_final_response"].bool_param
    failed = StreamResponse.FromString(encode_stream_error("what was wrong", "7", "NOT_FOUND"))
    assert failed.error_message == "what was wrong"
    assert failed.infer_response.id == "7"
    assert failed.infer_response.parameters["error_code"].string_param == "NOT_FOUND"
    assert not failed.infer_response.outputs


def test_the_final_answer_is_marked_for_who_asks() -> None:
    request = build(id="7")
    assert not wants_final(split(request.SerializeToString()))
    request.parameters["triton_enable_empty_final_response"].bool_param = False
    assert not wants_final(split(request.SerializeToString()))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    assert wants_final(split(request.SerializeToString()))
    assert request_id(split(request.SerializeToString())) == "7"


@given(st.integers(0, 2**35))
def test_lengths_are_what_protobuf_writes(value: int) -> None:
    statistics = message("inference.StatisticDuration")
    assert statistics.FromString(b"\x08" + varint(value)).count == value
