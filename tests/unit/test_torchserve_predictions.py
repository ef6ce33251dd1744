"""Bodies become inputs by the model's signature, and outputs become bare JSON."""

from __future__ import annotations

import json
import re
import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyserve.errors import InvalidInput, PermissionDenied
from pyserve.http.forms import MAX_FIELDS, read_fields
from pyserve.messages import InferResponse, InputTensor, OutputTensor, Timing
from pyserve.model import Model
from pyserve.signature import TensorSpec, UntypedSpec, encode_bytes_elements
from pyserve.torchserve.download import check_allowed
from pyserve.torchserve.inputs import Field, Inputs, read_inputs
from pyserve.torchserve.outputs import write_prediction

JSON = "application/json"
OCTETS = "application/octet-stream"


def model(*specs: TensorSpec, batched: bool = True, processor: object = None) -> Model:
    fake = SimpleNamespace(inputs=specs, batched=batched, processor=processor)
    return cast("Model", fake)


def typed(*shape: int, dtype: str = "FP32") -> TensorSpec:
    return TensorSpec("x", dtype, shape)


def read(made: Model, data: bytes, kind: str = JSON) -> tuple[InputTensor, Inputs]:
    found = read_inputs(made, {"body": Field(data, kind)})
    assert len(found.tensors) == 1
    return found.tensors[0], found


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize(
    ("spec", "batched", "body", "shape", "one_row"),
    [
        (typed(2), True, b"[1, 2]", (1, 2), True),
        (typed(2), True, b"[[1, 2], [3, 4]]", (2, 2), False),
        (typed(2, 2), True, b"[[1, 2], [3, 4]]", (1, 2, 2), True),
        (typed(2, 2), True, b"[1, 2, 3, 4]", (1, 2, 2), True),
        (typed(-1), True, b"[1, 2, 3]", (1, 3), True),
        (typed(), True, b"5", (1,), True),
        (typed(), True, b"[5, 6]", (2,), False),
        (typed(1, 2), False, b"[1, 2]", (1, 2), True),
        (typed(-1, 2), False, b"[1, 2]", (1, 2), True),
        (typed(1, 2), False, b"[[1, 2]]", (1, 2), False),
        (UntypedSpec("x"), False, b"[1, 2]", (1, 2), True),
        (UntypedSpec("x"), False, b"7", (1,), True),
    ],
)
def test_json_gets_the_shape_that_the_model_takes(
    spec: TensorSpec, batched: bool, body: bytes, shape: tuple[int, ...], one_row: bool
) -> None:
    tensor, found = read(model(spec, batched=batched), body)
    assert (tensor.shape, found.one_row) == (shape, one_row)
    assert tensor.datatype == "FP32"
    numbers = [float(one) for one in re.findall(rb"[0-9]+", body)]
    assert bytes(tensor.data) == floats(*numbers)


def test_whole_numbers_stay_whole() -> None:
    tensor, _ = read(model(typed(2, dtype="INT64")), b"[9007199254740993, 2]")
    assert struct.unpack("<2q", tensor.data) == (9007199254740993, 2)


@pytest.mark.parametrize(
    ("spec", "data", "shape"),
    [
        (typed(2), floats(1, 2), (1, 2)),
        (typed(2), floats(1, 2, 3, 4), (2, 2)),
        (typed(-1), floats(1, 2, 3), (1, 3)),
        (UntypedSpec("x"), floats(1, 2, 3), (1, 3)),
    ],
)
def test_bytes_are_rows_one_after_the_other(
    spec: TensorSpec, data: bytes, shape: tuple[int, ...]
) -> None:
    tensor, _ = read(model(spec), data, OCTETS)
    assert (tensor.shape, bytes(tensor.data)) == (shape, data)


def test_bytes_that_happen_to_look_like_json_are_bytes_where_the_type_is_missing() -> None:
    data = b"[" + bytes(7)
    tensor, _ = read(model(typed(2)), data, "")
    assert bytes(tensor.data) == data


@pytest.mark.parametrize(
    ("spec", "data", "kind"),
    [
        (typed(2), b"[[[1, 2]]]", JSON),
        (typed(2), b"[[1, 2], [3]]", JSON),
        (typed(2), b'["a", "b"]', JSON),
        (typed(2), b"[NaN, 1]", JSON),
        (typed(2), b'{"y": [1, 2]}', JSON),
        (typed(2), b"[" * 70 + b"]" * 70, JSON),
        (typed(2), b"[1, 2", JSON),
        (typed(2), bytes(7), OCTETS),
        (typed(2), b"", OCTETS),
        (typed(-1, -1), bytes(16), OCTETS),
        (typed(2, dtype="INT8"), b"[1, 300]", JSON),
        (UntypedSpec("x"), bytes(7), OCTETS),
        (UntypedSpec("x"), b"", OCTETS),
        (typed(2), b'{"instances": [[1, 2], [3]]}', JSON),
        (typed(2), b'{"instances": [{"y": 1}]}', JSON),
    ],
)
def test_what_does_not_fit_is_the_clients_fault(spec: TensorSpec, data: bytes, kind: str) -> None:
    with pytest.raises(InvalidInput):
        read(model(spec), data, kind)


def test_text_goes_to_a_model_of_strings() -> None:
    strings = model(TensorSpec("x", "BYTES", (1,)))
    tensor, found = read(strings, b"hello", "text/plain")
    assert (tensor.shape, tensor.data) == ((1, 1), encode_bytes_elements([b"hello"]))
    tensor, found = read(strings, b'["a", "b"]')
    assert (tensor.shape, found.one_row) == ((2, 1), False)


# --- answers ------------------------------------------------------------------------------------


def output(name: str, shape: tuple[int, ...], *values: float) -> OutputTensor:
    return OutputTensor(name, "FP32", shape, floats(*values))


def answer(outputs: list[OutputTensor], *, one_row: bool = True, kind: str = "", **kw: Any) -> Any:
    response = InferResponse("m", "1", "", outputs, Timing(0, 1, 0, 0, 0))
    inputs = Inputs([], one_row, **kw)
    return json.loads(write_prediction(model(typed(2)), response, inputs, kind).body)


def test_a_row_is_answered_without_its_batch() -> None:
    assert answer([output("y", (1, 3), 1, 2, 3)]) == [1, 2, 3]
    assert answer([output("y", (1,), 4)]) == 4
    assert answer([output("y", (1, 2, 2), 1, 2, 3, 4)]) == [[1, 2], [3, 4]]
    assert answer([output("y", (3,), 1, 2, 3)]) == [1, 2, 3]
    assert answer([output("y", (1, 0))]) == []


def test_rows_are_answered_as_rows() -> None:
    assert answer([output("y", (2, 2), 1, 2, 3, 4)], one_row=False) == [[1, 2], [3, 4]]
    assert answer([output("y", (2,), 1, 2)], one_row=False) == [1, 2]
    both = [output("a", (2, 1), 1, 2), output("b", (2, 1), 3, 4)]
    assert answer(both, one_row=False) == {"a": [[1], [2]], "b": [[3], [4]]}
    assert answer(both, one_row=False, enveloped=True) == {
        "predictions": [{"a": [1], "b": [3]}, {"a": [2], "b": [4]}]
    }


def test_a_segmentation_is_the_class_and_probability_of_each_pixel() -> None:
    scores = output("out", (1, 2, 1, 2), 0, 5, 0, -5)
    pixels = answer([scores], kind="image_segmenter")
    assert pixels[0][0] == [0.0, 0.5]
    assert pixels[0][1] == [0.0, pytest.approx(0.99995, abs=1e-4)]


def test_what_a_handler_answers_goes_out_as_it_is() -> None:
    outputs = [
        OutputTensor("body", "BYTES", (1, 1), encode_bytes_elements([b"plain words"])),
        OutputTensor("content_type", "BYTES", (1, 1), encode_bytes_elements([b"text/plain"])),
    ]
    response = InferResponse("m", "1", "", outputs, Timing(0, 1, 0, 0, 0))
    prediction = write_prediction(model(typed(2)), response, Inputs([], True), "custom")
    assert prediction == (b"plain words", "text/plain")


# --- forms --------------------------------------------------------------------------------------


def multipart(*parts: tuple[str, bytes]) -> bytes:
    head = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n'
    return b"".join(head.format(n).encode() + data + b"\r\n" for n, data in parts) + b"--b--\r\n"


async def test_binary_fields_come_out_as_they_went_in() -> None:
    data = bytes(range(256)) * 300 + b"\r\n--c\r\n--\n\r"
    fields = await read_fields(multipart(("data", data)), "multipart/form-data; boundary=b")
    assert fields == {"data": Field(data)}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (multipart(("a", b"1"), ("a", b"2")), "multipart/form-data; boundary=b"),
        (
            multipart(*((f"f{n}", b"") for n in range(MAX_FIELDS + 1))),
            "multipart/form-data; boundary=b",
        ),
        (multipart(("a", b"1")), "multipart/form-data"),
        (multipart(("a", b"1"))[:-12], "multipart/form-data; boundary=b"),
        (b"--b\r\nnonsense\r\n\r\n1\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"&".join(b"a%d=1" % n for n in range(100)), "application/x-www-form-urlencoded"),
        (b"a=\xff\xfe", "application/x-www-form-urlencoded"),
    ],
)
async def test_odd_forms_are_the_clients_fault(body: bytes, kind: str) -> None:
    with pytest.raises(InvalidInput):
        await read_fields(body, kind)


# --- URLs ---------------------------------------------------------------------------------------

ALLOWED = ("https://models.example/mars/", "http://10.0.0.1:8000")


@pytest.mark.parametrize(
    "url", ["https://models.example/mars/a.mar", "http://10.0.0.1:8000/any/where.mar?x=1"]
)
def test_urls_below_a_prefix_are_allowed(url: str) -> None:
    check_allowed(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "https://models.example/other/a.mar",
        "http://models.example/mars/a.mar",
        "https://models.example:444/mars/a.mar",
        "https://models.example.evil/mars/a.mar",
        "https://models.example/mars/../other/a.mar",
        "https://models.example/mars/%2e%2e/other/a.mar",
        "https://models.example/mars/%252e%252e/a.mar",
        "https://models.example/mars/..%2fother/a.mar",
        "https://user@models.example/mars/a.mar",
        "https://models.example\\@evil/mars/a.mar",
        "http://10.0.0.1:80001/a.mar",
        "http://10.0.0.1:8000.evil/a.mar",
        "http://10.0.0.1/a.mar",
        "ftp://models.example/mars/a.mar",
        "file:///etc/passwd",
        "https:///mars/a.mar",
        "https://[bad/mars/a.mar",
    ],
)
def test_everything_else_is_not(url: str) -> None:
    with pytest.raises(PermissionDenied):
        check_allowed(url, ALLOWED)
