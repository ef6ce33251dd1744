"""The requests that the benchmark makes up are ones that the server reads back as meant."""

import json

import pytest

from pyserve.bench import bodies
from pyserve.errors import ConfigError
from pyserve.messages import InputTensor
from pyserve.signature import ExampleTensor, Signature, TensorSpec, encode_bytes_elements
from pyserve.wire import oip_binary, oip_json

X = InputTensor("x", "FP32", (1, 2), b"\0\0\x80\x3f\0\0\0\x40")
TEXT = InputTensor("text", "BYTES", (2,), encode_bytes_elements([b"a", b"bc"]))


def test_binary_body_is_read_back() -> None:
    request = bodies.encode("/v2/models/m/infer", [X, TEXT], "binary")
    length = int(request.headers["Inference-Header-Content-Length"])
    decoded = oip_binary.decode_request(request.body, length, model="m", version=None)
    assert [(*one[:3], bytes(one.data)) for one in decoded.inputs] == [X, TEXT]
    assert decoded.binary_default


def test_json_body_is_read_back() -> None:
    request = bodies.encode("/v2/models/m/infer", [X, TEXT], "json")
    decoded = oip_json.decode_request(request.body, model="m", version=None)
    assert [(*one[:3], bytes(one.data)) for one in decoded.inputs] == [X, TEXT]


def test_raw_body_is_the_bytes_of_the_only_input() -> None:
    request = bodies.encode("/p", [X], "raw")
    assert request.body == X.data
    assert request.headers == {"Inference-Header-Content-Length": "0"}
    with pytest.raises(ConfigError, match="one input, the model has 2"):
        bodies.encode("/p", [X, TEXT], "raw")


def test_json_refuses_dtypes_it_does_not_carry() -> None:
    with pytest.raises(ConfigError, match="BF16"):
        bodies.encode("/p", [InputTensor("h", "BF16", (1,), b"\0\0")], "json")


def test_request_as_bytes_has_one_length_and_its_body_last() -> None:
    text = bodies.HttpRequest("/p", {"A": "b"}, b"body").to_bytes("here:1")
    assert text == b"POST /p HTTP/1.1\r\nHost: here:1\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"


def signature(spec: TensorSpec, *examples: ExampleTensor, batched: bool = True) -> Signature:
    return Signature(
        inputs=(spec,),
        outputs=(TensorSpec("y", "FP32", ()),),
        batched=batched,
        examples=tuple({spec.name: example} for example in examples),
    )


def test_rows_of_the_example_come_in_turn() -> None:
    known = signature(TensorSpec("x", "UINT8", (2,)), ExampleTensor("UINT8", (2, 2), b"abcd"))
    for rows, data in ((1, b"ab"), (2, b"abcd"), (3, b"abcdab")):
        assert bodies.inputs_for(known, rows=rows) == [InputTensor("x", "UINT8", (rows, 2), data)]


def test_rows_of_strings_are_kept_whole() -> None:
    example = ExampleTensor("BYTES", (2, 1), encode_bytes_elements([b"long one", b"b"]))
    known = signature(TensorSpec("t", "BYTES", (1,)), example)
    (tensor,) = bodies.inputs_for(known, rows=3)
    assert bodies.values(tensor) == ["long one", "b", "long one"]


def test_example_without_a_batch_is_sent_as_it_is() -> None:
    known = signature(
        TensorSpec("x", "INT8", (-1,)), ExampleTensor("INT8", (3,), b"abc"), batched=False
    )
    assert bodies.inputs_for(known, rows=7) == [InputTensor("x", "INT8", (3,), b"abc")]


@pytest.mark.parametrize(
    "dtype", ["BOOL", "UINT8", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"]
)
def test_made_up_inputs_have_the_bytes_of_their_shape(dtype: str) -> None:
    (made,) = bodies.inputs_for(signature(TensorSpec("x", dtype, (-1, 2))), rows=2)
    (known,) = bodies.inputs_for_metadata(
        {"inputs": [{"name": "x", "datatype": dtype, "shape": [-1, -1, 2]}]}, rows=2
    )
    assert made == known
    request = bodies.encode("/p", [made], "binary")
    length = int(request.headers["Inference-Header-Content-Length"])
    oip_binary.decode_request(request.body, length, model="m", version=None)
    if dtype not in ("FP16", "BF16"):
        assert len(json.loads(bodies.encode("/p", [made], "json").body)["inputs"][0]["data"]) > 0


def test_path_escapes_names() -> None:
    assert bodies.infer_path("a b", "2") == "/v2/models/a%20b/versions/2/infer"


@pytest.mark.parametrize("kind", ["binary", "json"])
def test_parameters_are_added_and_the_rest_stays(kind: bodies.BodyKind) -> None:
    plain = bodies.encode("/v2/models/m/infer", [X], kind)
    request = bodies.with_parameters(plain, timeout=50_000, priority=1)
    if kind == "binary":
        length = int(request.headers["Inference-Header-Content-Length"])
        decoded = oip_binary.decode_request(request.body, length, model="m", version=None)
        assert decoded.binary_default
    else:
        decoded = oip_json.decode_request(request.body, model="m", version=None)
    assert [(*one[:3], bytes(one.data)) for one in decoded.inputs] == [X]
    assert (decoded.timeout_us, decoded.priority) == (50_000, 1)
    assert decoded.deadline_ns > 0


def test_raw_body_has_no_place_for_parameters() -> None:
    with pytest.raises(ConfigError, match="no parameters"):
        bodies.with_parameters(bodies.encode("/p", [X], "raw"), timeout=1)
